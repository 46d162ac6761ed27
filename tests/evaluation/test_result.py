"""`scores.json`: written whole, and read back only if it is what it should be, whoever wrote it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from d4k import Score
from d4k.errors import DataError
from d4k.evaluation import Evaluation, Fault, Picture, read_evaluation, write_evaluation

KEY = "ab" * 16

EVALUATION = Evaluation(
    name="mine",
    scores=(
        Score("glcm", 0.5, "bits", 2, True, {"levels": 64}, {"more": 1.5}, (0.4, 0.6), {"more": (1.0, 2.0)}),
        Score("fid", 12.0, "", 2, False, references=3, remarks=("Few pictures.",), versions={"d4k": "0.1.0"}),
    ),
    pictures=(
        Picture("1", "../p/1.png", "0" * 64, 8, 4, "a cat", 7, "../r/1.png", {"glcm": 0.5}, {"glcm": KEY, "fid": KEY}),
        Picture("2", "../p/2.png", "f" * 64, 8, 4),
    ),
    faults=(Fault("../p/3.png", "empty", "The file has no bytes.", True),),
    references={"fid": (KEY, KEY)},
    about={"model": "tiny", "size": [8, 4]},
)


def written(folder: Path, change: Callable[[Any], Any]) -> Path:
    """The file with a change that somebody else made."""
    path = write_evaluation(folder, EVALUATION)
    data = json.loads(path.read_text())
    path.write_text(json.dumps(change(data) or data))
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """From the folder, or the file; the folder is made."""
    path = write_evaluation(tmp_path / "new", EVALUATION)
    assert read_evaluation(path) == read_evaluation(tmp_path / "new") == EVALUATION
    assert json.loads(path.read_text())["format"] == 2


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    """And NaN when they are read."""
    bad = evolve(EVALUATION, scores=(Score("x", math.nan, "", 1, None, interval=(-math.inf, 1.0)),))
    path = write_evaluation(tmp_path, bad)
    assert "NaN" not in path.read_text()
    (score,) = read_evaluation(path).scores
    assert score.interval is not None
    assert (math.isnan(score.value), math.isnan(score.interval[0]), score.interval[1]) == (True, True, 1.0)


def test_a_key_that_is_not_known_is_passed_over(tmp_path: Path) -> None:
    """A newer d4k may add one."""
    path = written(tmp_path, lambda data: {**data, "new": 1, "scores": [{**one, "new": 2} for one in data["scores"]]})
    assert read_evaluation(path) == EVALUATION


def put(*place: Any) -> Callable[[Any], None]:
    """Put the last of these where the others lead."""

    def change(data: Any) -> None:
        *way, last, value = place
        for step in way:
            data = data[step]
        data[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: [data], "has format None, and this d4k reads 2"),
        (put("format", 1), "has format 1, and this d4k reads 2: write it anew with d4k evaluate --output"),
        (put("name", 3), "name must be a string, got 3"),
        (put("scores", {}), "scores must be a list, got {}"),
        (put("scores", 0, 5), r"scores\[0\] must be an object, got int"),
        (put("scores", 0, "value", "0.5"), r"scores\[0\].value must be a number, got '0.5'"),
        (put("scores", 0, "value", 1e308), r"scores\[0\].value must be a number of at most 1e\+100, got 1e\+308"),
        (put("scores", 0, "count", 2.5), r"scores\[0\].count must be a whole number, got 2.5"),
        (put("scores", 0, "count", True), r"scores\[0\].count must be a whole number, got True"),
        (put("scores", 0, "higher_is_better", "yes"), r"scores\[0\].higher_is_better must be true or false, got 'yes'"),
        (put("scores", 0, "interval", [1]), r"scores\[0\].interval must be a list, got \[1\]"),
        (put("scores", 0, "interval", [1, "2"]), r"scores\[0\].interval\[1\] must be a number, got '2'"),
        (put("scores", 0, "remarks", [1]), r"scores\[0\].remarks\[0\] must be a string"),
        (put("scores", 0, "settings", []), r"scores\[0\].settings must be an object, got \[\]"),
        (put("scores", 1, "metric", "glcm"), "two scores are of the same metric"),
        (lambda data: data["scores"][0].pop("unit") and None, r"scores\[0\].unit is missing"),
        (put("pictures", 0, "sha256", "00"), r"pictures\[0\].sha256 must be 64 hexadecimal digits, got '00'"),
        (put("pictures", 0, "width", 0), r"pictures\[0\].width and height must be at least 1, got 0x4"),
        (put("pictures", 0, "values", {"glcm": [1]}), r"pictures\[0\].values.glcm must be a number"),
        (put("pictures", 0, "keys", {"glcm": "xyz"}), r"pictures\[0\].keys hold 'xyz', which is no key of a row"),
        (put("references", {"fid": ["abc"]}), "references hold something that is no key of a row"),
        (put("faults", 0, "left_out", 1), r"faults\[0\].left_out must be true or false, got 1"),
    ],
)
def test_a_file_that_somebody_else_wrote_is_one_error(tmp_path: Path, change: Any, message: str) -> None:
    path = written(tmp_path, change)
    with pytest.raises(DataError, match=message) as error:
        read_evaluation(path)
    assert str(path) in str(error.value)


def test_no_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*scores\.json: No such file"):
        read_evaluation(tmp_path)
    (tmp_path / "scores.json").write_bytes(b"\xff")
    with pytest.raises(DataError, match="is not readable JSON"):
        read_evaluation(tmp_path)


PLACES = [
    ("name",), ("scores",), ("pictures",), ("faults",), ("references",), ("rows",), ("about",), ("scores", 0),
    ("scores", 0, "metric"), ("scores", 0, "interval"), ("scores", 0, "details"), ("scores", 0, "detail_intervals"),
    ("pictures", 0), ("pictures", 0, "file"), ("pictures", 0, "seed"), ("pictures", 0, "keys"), ("faults", 0),
]  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@given(place=st.sampled_from(PLACES), value=JSON)
def test_whatever_stands_in_a_place_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    """With a DataError, never with another exception."""
    path = written(tmp_path_factory.mktemp("scores"), put(*place, value))
    with suppress(DataError):
        assert isinstance(read_evaluation(path), Evaluation)
