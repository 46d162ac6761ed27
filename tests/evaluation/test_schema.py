"""The published schemas describe what is written: validated with the words of JSON Schema 2020-12 that they use."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import attrs
import pytest
from attrs import evolve

from d4k.errors import DataError, UnknownNameError
from d4k.evaluation import Evaluation, Fault, Picture, write_evaluation, write_scores
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.schema import SCHEMAS as NAMES
from d4k.evaluation.schema import make_schema, read_schema
from d4k.evaluation.tables import write_comparison
from d4k.evaluation.votes import Vote, Votes, WinRate, read_votes, win_rate
from d4k.protocols import Score

SCHEMAS = {name: read_schema(name) for name in NAMES}
TYPES = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip
SILENT = {"$schema", "title", "description", "$defs"}


def faults(schema: Any, value: Any, root: Any, where: str = "") -> list[str]:
    """What in a value a schema does not allow; a word of the schema that is not known here is an error."""
    found: list[str] = []
    for word, rule in schema.items():
        if word not in SILENT and (checked := RULES[word](rule, value, schema, root, where)):
            found += [f"{where or '/'}: {word}"] if checked is True else checked
    return found


def _type(rule: Any, value: Any, *_: Any) -> bool:
    kinds = [rule] if isinstance(rule, str) else rule
    return not any(isinstance(value, TYPES[kind]) and (kind == "boolean") >= isinstance(value, bool) for kind in kinds)


def _properties(rule: Any, value: Any, schema: Any, root: Any, where: str) -> list[str]:
    known = value.items() if isinstance(value, dict) else ()
    return [fault for key, each in known if key in rule for fault in faults(rule[key], each, root, f"{where}/{key}")]


def _others(rule: Any, value: Any, schema: Any, root: Any, where: str) -> list[str]:
    known = value.items() if isinstance(value, dict) else ()
    others = [(key, each) for key, each in known if key not in schema.get("properties", ())]
    return [fault for key, each in others for fault in faults(rule, each, root, f"{where}/{key}")]


def _items(rule: Any, value: Any, schema: Any, root: Any, where: str) -> Any:
    fixed = len(schema.get("prefixItems", ()))
    rest = list(enumerate(value))[fixed:] if isinstance(value, list) else []
    if rule is False:
        return bool(rest)
    return [fault for place, one in rest for fault in faults(rule, one, root, f"{where}/{place}")]


def _first_items(rule: Any, value: Any, schema: Any, root: Any, where: str) -> list[str]:
    pairs = enumerate(zip(rule, value, strict=False)) if isinstance(value, list) else ()
    return [fault for place, (part, one) in pairs for fault in faults(part, one, root, f"{where}/{place}")]


def _ref(rule: str, value: Any, schema: Any, root: Any, where: str) -> list[str]:
    return faults(root["$defs"][rule.removeprefix("#/$defs/")], value, root, where)


RULES: dict[str, Any] = {
    "type": _type,
    "required": lambda rule, value, *_: isinstance(value, dict) and not set(rule) <= set(value),
    "properties": _properties,
    "additionalProperties": _others,
    "items": _items,
    "prefixItems": _first_items,
    "$ref": _ref,
    "oneOf": lambda rule, value, schema, root, where: sum(not faults(one, value, root, where) for one in rule) != 1,
    "anyOf": lambda rule, value, schema, root, where: all(faults(one, value, root, where) for one in rule),
    "enum": lambda rule, value, *_: value not in rule,
    "const": lambda rule, value, *_: value != rule,
    "minItems": lambda rule, value, *_: isinstance(value, list) and len(value) < rule,
}

SCORE = Score(
    "fid", 9.0, "", 3, False, {"mode": "clean"}, {"bpp": math.nan}, (8.0, 10.0), {"bpp": (1.0, 2.0)}, 9, ("Few.",),
    {"d4k": "1"},
)  # fmt: skip
PICTURE = Picture("0", "0.png", "0" * 64, 8, 8, "a cat", 1, "r.png", {"glcm": 0.5}, {"glcm": "00" * 8})
SYSTEM = Evaluation(
    "a", (SCORE, evolve(SCORE, metric="x", value=math.nan, interval=None, higher_is_better=None)), (PICTURE,),
    (Fault("1.png", "empty", "It is empty.", True),), {"fid": ("00" * 8,)}, "../rows", {"model": {"size": 8}},
)  # fmt: skip
DUEL = Difference("fid", "a", "b", 9, 8, -1.0, (-3.0, 1.0), None, 0, 0, 0, 10, False, None, "", False)
VOTE = {"row": "0", "prompt": None, "a": "x", "b": "y", "choice": "tie", "left": "b", "seconds": 1.5}
VOTES = {
    "format": 1, "kind": "d4k-votes", "report": "A & B", "created": "2026-11-25T12:00:00Z", "voter": "",
    "votes": [VOTE],
}  # fmt: skip


def written(tmp_path: Path) -> dict[str, list[Any]]:
    """What d4k writes, by its schema."""
    write_evaluation(tmp_path, SYSTEM)
    write_scores({"a": SYSTEM.scores, "b": []}, tmp_path / "several.json")
    comparison = Comparison(("a", "b"), (DUEL, evolve(DUEL, interval=None, p_value=0.5)), ("One.",))
    write_comparison(comparison, tmp_path / "comparison.json", [win_rate("b", "a", 3, 1)])
    read = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("scores", "several", "comparison")}
    return {"scores": [read["scores"], read["several"]], "comparison": [read["comparison"]], "votes": [VOTES]}


def test_what_is_written_fits_its_schema(tmp_path: Path) -> None:
    """Undefined values and absent intervals among it."""
    files = written(tmp_path)
    assert set(files) == set(SCHEMAS) == {"scores", "comparison", "votes"}
    for name, contents in files.items():
        for content in contents:
            assert faults(SCHEMAS[name], content, SCHEMAS[name]) == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("scores", "format", 1),
        ("scores", "name", None),
        ("scores", "systems", []),  # both at once
        ("scores", "scores/0/interval", [1.0]),
        ("scores", "scores/0/details/bpp", "2"),
        ("scores", "scores/1/higher_is_better", 1),
        ("scores", "pictures/0/width", True),
        ("scores", "faults/0/left_out", "yes"),
        ("comparison", "kind", "d4k-votes"),
        ("comparison", "differences/0/real", None),
        ("comparison", "differences/0/wins", 1.5),
        ("comparison", "differences/0/interval", [1.0, 2.0, 3.0]),
        ("comparison", "votes/0/rate", "1"),
        ("votes", "kind", "votes"),
        ("votes", "votes/0/choice", "left"),
        ("votes", "votes/0/seconds", "1"),
        ("votes", "votes/0/row", None),
    ],
)
def test_what_is_wrong_does_not_fit(tmp_path: Path, name: str, key: str, value: Any) -> None:
    """A schema that allows everything would be none."""
    content = copy.deepcopy(written(tmp_path)[name][0])
    *way, last = key.split("/")
    inner = content
    for step in way:
        inner = inner[int(step) if isinstance(inner, list) else step]
    inner[last] = value
    assert faults(SCHEMAS[name], content, SCHEMAS[name])
    if name == "votes":  # and reading agrees
        (tmp_path / "votes.json").write_text(json.dumps(content))
        with pytest.raises(DataError):
            read_votes(tmp_path / "votes.json")


def test_votes_that_fit_are_read(tmp_path: Path) -> None:
    """The schema refuses nothing that is allowed."""
    (tmp_path / "votes.json").write_text(json.dumps(VOTES))
    assert read_votes(tmp_path / "votes.json").votes[0].choice == "tie"


@pytest.mark.parametrize("name", NAMES)
def test_published_schemas_follow_from_the_classes(name: str) -> None:
    """After a change: `d4k.evaluation.schema.write_schemas()`."""
    assert read_schema(name) == make_schema(name)


@pytest.mark.parametrize(
    ("name", "way", "cls", "besides"),
    [
        ("scores", "$defs evaluation", Evaluation, set()),
        ("scores", "$defs evaluation properties scores items", Score, set()),
        ("scores", "$defs evaluation properties pictures items", Picture, set()),
        ("scores", "$defs evaluation properties faults items", Fault, set()),
        ("comparison", "", Comparison, {"format", "kind", "votes"}),
        ("comparison", "properties differences items", Difference, set()),
        ("comparison", "properties votes items", WinRate, set()),
        ("votes", "", Votes, set()),
        ("votes", "properties votes items", Vote, set()),
    ],
)
def test_each_key_of_a_class_is_in_its_schema_and_the_other_way_round(
    name: str, way: str, cls: Any, besides: set[str]
) -> None:
    """What has no default is required, and all but the fixed words are described."""
    schema = SCHEMAS[name]
    for step in way.split():
        schema = schema[step]
    options = attrs.fields(cls)
    assert set(schema["properties"]) == {option.name for option in options} | besides
    needed = {option.name for option in options if option.default is attrs.NOTHING} | besides
    assert set(schema["required"]) == needed
    assert all(part.get("description") or "const" in part for part in schema["properties"].values())


def test_there_is_no_other_schema() -> None:
    """A name that is almost one is told."""
    with pytest.raises(UnknownNameError, match="unknown schema 'vote'; did you mean 'votes'"):
        read_schema("vote")
