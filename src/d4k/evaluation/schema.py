"""The published form of the files that evaluation writes and reads, as JSON Schema 2020-12.

The files lie beside this module in `schemas/`. They follow from the frozen classes and their docstrings, and a test
holds them to these; `write_schemas` writes them anew.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from d4k.errors import DataError, UnknownNameError
from d4k.evaluation import result, votes
from d4k.evaluation.difference import Comparison
from d4k.evaluation.result import Evaluation
from d4k.evaluation.votes import Votes, WinRate
from d4k.files import read_json, write_json

__all__ = ["SCHEMAS", "make_schema", "read_schema", "write_schemas"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path(__file__).parent / "schemas"
SCHEMAS = ("scores", "comparison", "votes")
"""Names of the schemas: of `scores.json`, of what `d4k compare --json` writes, and of votes that a report exports."""

SIMPLE: Mapping[Any, Any] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: ["number", "null"],  # null stands for what JSON has no number for
}


def read_schema(name: str) -> dict[str, Any]:
    """A schema as plain values.

    Args:
        name: "scores", "comparison" or "votes".

    Raises:
        UnknownNameError: there is no such schema.

    >>> read_schema("votes")["properties"]["kind"]
    {'const': 'd4k-votes'}
    """
    if name not in SCHEMAS:
        raise UnknownNameError("schema", name, SCHEMAS)
    schema: dict[str, Any] = read_json(FOLDER / f"{name}.schema.json", DataError)
    return schema


def make_schema(name: str) -> dict[str, Any]:
    """The same, made from the classes."""
    if name == "scores":
        return _scores()
    if name == "comparison":
        rates = {"type": "array", "items": _object(WinRate), "description": "win rates of votes."}
        fixed = {"format": {"const": 1}, "kind": {"const": "d4k-comparison"}}
        return _file("What d4k compare writes", Comparison, {**fixed, "votes": rates})
    fixed = {"format": {"const": votes.FORMAT}, "kind": {"const": votes.KIND}}
    schema = _file("Votes that a report exports", Votes, fixed)
    vote = schema["properties"]["votes"]["items"]
    vote["properties"]["choice"]["enum"], vote["properties"]["left"]["enum"] = ["a", "b", "tie"], ["a", "b"]
    return schema


def _scores() -> dict[str, Any]:
    """One system with its pictures, or a list of systems without them."""
    one = {"$ref": "#/$defs/evaluation"}
    several = {"type": "object", "properties": {"systems": {"type": "array", "items": one}}, "required": ["systems"]}
    return {
        "$schema": DIALECT,
        "title": "What d4k evaluate writes: scores.json of one system, and of several what --json names",
        "type": "object",
        "properties": {"format": {"const": result.FORMAT}},
        "required": ["format"],
        "oneOf": [one, several],
        "$defs": {"evaluation": _object(Evaluation)},
    }


def _file(title: str, cls: Any, fixed: Mapping[str, Any]) -> dict[str, Any]:
    made = _object(cls)
    properties, required = {**made["properties"], **fixed}, sorted({*made["required"], *fixed})
    return {"$schema": DIALECT, "title": title, **made, "properties": properties, "required": required}


def _object(cls: Any) -> dict[str, Any]:
    hints, said = get_type_hints(cls), _arguments(cls)
    names = [option.name for option in attrs.fields(cls)]
    properties = {name: {**_typed(hints[name]), "description": said.get(name, "")} for name in names}
    required = [option.name for option in attrs.fields(cls) if option.default is attrs.NOTHING]
    return {"type": "object", "properties": properties, "required": required}


def _typed(hint: Any) -> dict[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return {"anyOf": [_typed(one) for one in inner if one is not type(None)] + [{"type": "null"}]}
    if attrs.has(hint):
        return _object(hint)
    if origin is tuple and inner[-1] is Ellipsis:
        return {"type": "array", "items": _typed(inner[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_typed(one) for one in inner], "minItems": len(inner), "items": False}
    if origin is not None:
        return {"type": "object", "additionalProperties": _typed(inner[1])}
    return {"type": SIMPLE[hint]} if hint in SIMPLE else {}


def _arguments(cls: Any) -> dict[str, str]:
    """What the docstring of a class says of each field."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    return {name: " ".join(words.split()) for name, words in re.findall(r"^    (\w+): ((?:.|\n {8})*)", text, re.M)}


def write_schemas() -> None:
    """Write all schemas anew, after a class changed."""
    for name in SCHEMAS:
        write_json(FOLDER / f"{name}.schema.json", make_schema(name))
