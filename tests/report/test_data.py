"""`data.js`: what a browser reads from it is what was written, whatever the texts hold."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4k.report.data import (
    PREFIX,
    LevelData,
    MetricData,
    PictureData,
    ReportData,
    RowData,
    ScoreData,
    TilesData,
    script,
)

NASTY = "</script><img src=x onerror=alert(1)> & \u2028\u2029 \ud800 模型 \\ \" ' \0 \x7f <!--"


def report(title: str = "t", **more: object) -> ReportData:
    return ReportData(title, "2026-11-25T00:00:00Z", "1", (), more.pop("metrics", ()), (), **more)  # type: ignore[arg-type]


def read(text: str) -> dict[str, object]:
    assert text.startswith(PREFIX)
    assert text.endswith(";\n")
    result: dict[str, object] = json.loads(text[len(PREFIX) : -2])
    return result


@given(st.text(st.characters()))
def test_texts_come_back_and_nothing_in_them_is_html_or_ends_a_line(text: str) -> None:
    """Any text, lone surrogates too: the file is ASCII in one line, without a character of HTML."""
    written = script(report(text, notes=(text,)))
    assert read(written)["title"] == text
    assert read(written)["notes"] == [text]
    assert written.isascii()
    assert not set("<>&") & set(written)
    assert written.count("\n") == 1


def test_a_script_in_a_prompt_stays_text() -> None:
    """Nothing can end the script element, or the string."""
    row = RowData(NASTY, NASTY, (None,))
    (found,) = read(script(report(rows=(row,))))["rows"]  # type: ignore[misc]
    assert found == {"id": NASTY, "prompt": NASTY, "pictures": [None]}


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run the script in")
def test_the_script_means_the_same_to_a_javascript_engine() -> None:
    """Run as a script, `window.D4K` holds the texts."""
    code = (
        "const window = {};"
        + script(report(NASTY))
        + "process.stdout.write(JSON.stringify([...window.D4K.title].map(c => c.codePointAt(0))))"
    )
    result = subprocess.run(["node"], input=code, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [ord(character) for character in NASTY]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_null_wherever_they_are(value: float) -> None:
    """In scores, intervals, details, values of pictures and settings."""
    score = ScoreData(value, (value, 1.0), 1, 0, {"x": value})
    metric = MetricData("m", "", None, {"deep": {"list": [value]}}, (), False)
    tiles = TilesData("tiles/x", 512, (LevelData(1, 1, 1, 1, "png"),), 0)
    picture = PictureData("p", 1, 1, None, "", "thumbs/x.jpg", tiles, {"m": value})
    data = ReportData("t", "", "1", (), (metric,), ((score, None),), rows=(RowData("r", None, (picture,)),))
    found = read(script(data))
    assert found["scores"] == [
        [
            {
                "value": None,
                "interval": [None, 1.0],
                "count": 1,
                "references": 0,
                "details": {"x": None},
                "detailIntervals": {},
            },
            None,
        ]
    ]
    assert found["metrics"][0]["settings"] == {"deep": {"list": [None]}}  # type: ignore[index]
    assert found["rows"][0]["pictures"][0]["values"] == {"m": None}  # type: ignore[index]


def test_fields_are_in_camel_case_and_keys_of_mappings_stay() -> None:
    """`higher_is_better` is a field, `some_option` is a name that somebody gave."""
    metric = MetricData("m", "bits", True, {"some_option": (1, 2)}, ("A remark.",), True, 64)
    assert read(script(report(metrics=(metric,))))["metrics"] == [
        {
            "name": "m",
            "unit": "bits",
            "higherIsBetter": True,
            "settings": {"some_option": [1, 2]},
            "remarks": ["A remark."],
            "set": True,
            "patch": 64,
        }
    ]


def test_what_json_does_not_know_is_written_as_text() -> None:
    """A setting may be a path or another object."""
    from pathlib import Path

    metric = MetricData("m", "", None, {"file": Path("a/b")}, (), False)
    assert read(script(report(metrics=(metric,))))["metrics"][0]["settings"] == {"file": str(Path("a/b"))}  # type: ignore[index]
