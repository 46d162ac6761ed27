"""Schemas: they follow from the classes, and what d4k writes keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from d4k.errors import UnknownNameError
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.result import Evaluation, Fault, Picture, write_evaluation
from d4k.evaluation.schema import SCHEMAS, make_schema, read_schema
from d4k.evaluation.tables import write_comparison
from d4k.evaluation.votes import win_rate
from d4k.protocols import Score

TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
    "null": type(None),
}  # fmt: skip


def check(value: Any, schema: dict[str, Any], where: str = "") -> None:
    """The part of JSON Schema that these schemas use."""
    if "anyOf" in schema:
        assert any(fits(value, each) for each in schema["anyOf"]), where
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        assert any(isinstance(value, TYPES[name]) for name in names), f"{where}: {value!r} is no {names}"
    assert value == schema.get("const", value), where
    assert value in schema.get("enum", [value]), where
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value), where
        for key, inner in value.items():
            rest = schema.get("additionalProperties", {} if "properties" not in schema else None)
            part = schema.get("properties", {}).get(key, rest)
            assert part is not None, f"{where}.{key} is not in the schema"
            check(inner, part, f"{where}.{key}")
    if isinstance(value, list):
        fixed = schema.get("prefixItems", [])
        assert len(value) >= schema.get("minItems", 0), where
        for place, inner in enumerate(value):
            part = fixed[place] if place < len(fixed) else schema.get("items", {})
            assert part is not False, where
            check(inner, part, f"{where}[{place}]")


def fits(value: Any, schema: dict[str, Any]) -> bool:
    try:
        check(value, schema)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("name", SCHEMAS)
def test_published_schemas_follow_from_the_classes(name: str) -> None:
    """After a change: `d4k.evaluation.schema.write_schemas()`. Every key is described."""
    assert read_schema(name) == make_schema(name)
    described = [key for key, part in read_schema(name)["properties"].items() if part.get("description")]
    assert len(described) >= len(read_schema(name)["properties"]) - 2  # format and kind speak for themselves


def test_scores_keep_their_schema(tmp_path: Path) -> None:
    """With everything that may be there, and a figure that is no number."""
    score = Score(
        "m", float("nan"), "", 2, None, {"k": [1]}, {"d": 1.0}, (0.0, 1.0), {"d": (0.0, 1.0)}, 3, ("r",), {"p": "1"}
    )
    picture = Picture("1", "1.png", "0" * 64, 8, 8, "a cat", 1, None, {"m": 1.0}, {"m": "00" * 8})
    fault = Fault("2.png", "empty", "It is empty.", True)
    path = write_evaluation(tmp_path, Evaluation("s", (score,), (picture,), (fault,), {"m": ("00" * 8,)}))
    check(json.loads(path.read_text()), read_schema("scores"))


def test_comparisons_keep_their_schema(tmp_path: Path) -> None:
    found = Difference("m", "a", "b", 1.0, 2.0, 1.0, (0.5, 1.5), None, 0, 0, 0, 3, True)
    path = tmp_path / "c.json"
    write_comparison(Comparison(("a", "b"), (found,), ("r",)), path, [win_rate("b", "a", 1, 2)])
    data = json.loads(path.read_text())
    check(data, read_schema("comparison"))
    assert set(data["differences"][0]) == {field.name for field in attrs.fields(Difference)}
    data["differences"][0]["interval"] = [1.0]
    assert not fits(data, read_schema("comparison"))


def test_votes_of_the_page_keep_their_schema() -> None:
    vote = {"row": "1", "prompt": None, "a": "x", "b": "y", "choice": "tie", "left": "b", "seconds": 2.5}
    votes = {"format": 1, "kind": "d4k-votes", "report": "", "created": "", "voter": "", "votes": [vote]}
    check(votes, read_schema("votes"))
    assert not fits({**votes, "votes": [{**vote, "choice": "c"}]}, read_schema("votes"))


def test_there_is_no_other_schema() -> None:
    with pytest.raises(UnknownNameError, match="unknown schema 'vote'; did you mean 'votes'"):
        read_schema("vote")
