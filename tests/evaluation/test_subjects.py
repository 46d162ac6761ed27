"""Which pictures are measured, and what belongs to each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d4k.errors import DataError
from d4k.evaluation import find_subjects, picture_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.png", "c.JPG"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    return tmp_path


def listed(folder: Path, *rows: Any) -> None:
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    (folder / "index.jsonl").write_text(text)


def test_the_index_of_a_folder_says_prompts_and_seeds(folder: Path) -> None:
    """What it does not list has none, and keys that are not of use are passed over."""
    listed(folder, {"file": "b.png", "prompt": "a cat", "seed": 7, "recipe": {}}, {"file": "a.png", "prompt": "a dog"})
    found = find_subjects(folder)
    assert [(one.id, one.file.name, one.prompt, one.seed) for one in found] == [
        ("a", "a.png", "a dog", None),
        ("b", "b.png", "a cat", 7),
        ("c", "c.JPG", None, None),
    ]


def test_prompts_that_are_given_count_more(folder: Path) -> None:
    """The seeds are still those of the index."""
    listed(folder, {"file": "b.png", "prompt": "a cat", "seed": 7})
    assert [(one.prompt, one.seed) for one in find_subjects(folder, ["x", "y", "z"])] == [
        ("x", None),
        ("y", 7),
        ("z", None),
    ]


def test_a_line_that_was_cut_off_is_passed_over(folder: Path) -> None:
    """A process that was killed leaves such a one at the end."""
    listed(folder, {"file": "b.png", "prompt": "a cat"})
    with (folder / "index.jsonl").open("a") as index:
        index.write('{"file": "a.png", "prom')
    assert [one.prompt for one in find_subjects(folder)] == [None, "a cat", None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 1 is not readable JSON"),
        ("[1]", "line 1 holds a list, not a JSON object"),
        ({"file": "a.png", "prompt": 3}, "line 1: prompt must be a string, got 3"),
        ({"file": "a.png", "seed": True}, "line 1: seed must be a whole number, got True"),
    ],
)
def test_an_index_that_is_damaged_names_its_line(folder: Path, row: Any, message: str) -> None:
    listed(folder, row)
    with pytest.raises(DataError, match=message):
        find_subjects(folder)


def test_an_index_leads_to_no_file_outside_its_folder(folder: Path) -> None:
    listed(folder, {"file": "../secret.png"}, {"file": "/etc/x.png"}, {"file": 3}, {"file": "a\0.png"})
    assert [one.file.name for one in find_subjects(folder)] == ["a.png", "b.png", "c.JPG"]


def test_a_folder_whose_listed_files_are_all_gone_still_has_them(tmp_path: Path) -> None:
    """So that they are named as missing."""
    listed(tmp_path, {"file": "gone.png"})
    assert [one.file.name for one in find_subjects(tmp_path)] == ["gone.png"]


def test_ids_are_unique(tmp_path: Path) -> None:
    """Names without their ending where that suffices; then names, then paths."""
    names = [
        ["a.png", "b.png"],
        ["a.png", "a.jpg"],
        ["x/a.png", "y/a.png"],
        ["a.png", "a.png"],
    ]
    assert [[one.id for one in find_subjects([Path(name) for name in some])] for some in names] == [
        ["a", "b"],
        ["a.png", "a.jpg"],
        ["x/a.png", "y/a.png"],
        ["a.png", "a.png#2"],
    ]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no picture"):
        picture_files(tmp_path)
    with pytest.raises(DataError, match="nowhere is not a folder; name one that holds pictures"):
        picture_files(tmp_path / "nowhere")
