"""Figures for a paper."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve
from PIL import Image

from d4k.errors import DataError, OutputError
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.figures import COLOURS, label, write_figures
from d4k.evaluation.result import Evaluation, Picture
from d4k.protocols import Score

GLCM = Score("glcm", 0.7, "bits", 3, True, interval=(0.6, 0.8))


def evaluation(name: str, *scores: Score, values: tuple[float, ...] = ()) -> Evaluation:
    pictures = [Picture(str(n), f"{n}.png", "0" * 64, 8, 8, values={"glcm": v}) for n, v in enumerate(values)]
    return Evaluation(name, scores, tuple(pictures))


def colours(path: Path) -> set[tuple[int, ...]]:
    """Those of a drawing that fill more than a few pixels."""
    found = Image.open(path).convert("RGB")
    pixels, counts = np.unique(np.asarray(found).reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(int(part) for part in pixel) for pixel, count in zip(pixels, counts, strict=True) if count > 40}


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


TWO = [
    evaluation("$a_b$ & ^{", GLCM, values=(0.5, 0.7, 0.9, math.nan)),
    evaluation("b", evolve(GLCM, value=math.nan, interval=None), values=(0.4, math.inf)),
]
DUEL = Difference("glcm", TWO[0].name, "b", 0.5, 0.7, 0.2, (0.1, 0.3), 0.01, 3, 0, 0, 3, True, higher_is_better=True)


def test_figures_are_written_as_png_and_pdf(tmp_path: Path) -> None:
    """Whole, with a name that is no formula, an undefined score and values that are no numbers."""
    files = write_figures(tmp_path / "f", TWO, Comparison(("a", "b"), (DUEL,)))
    assert [file.name for file in files] == [
        "scores.png", "scores.pdf", "differences.png", "differences.pdf", "histograms.png", "histograms.pdf",
    ]  # fmt: skip
    assert sorted(files) == sorted((tmp_path / "f").iterdir())
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".png":
            width, height = Image.open(io.BytesIO(content)).size
            assert (min(width, height) > 200, max(width, height) < 1200) == (True, True)
        else:
            assert (content.startswith(b"%PDF"), content.rstrip().endswith(b"%%EOF")) == (True, True)
    assert rgb(COLOURS[0]) in colours(files[0])
    assert rgb(COLOURS[1]) not in colours(files[0])  # it has no figure
    assert {rgb(COLOURS[0]), rgb(COLOURS[1])} <= colours(files[4])


def test_no_window_can_open() -> None:
    """Figures are objects: pyplot, which chooses a screen to draw on, is not even imported."""
    code = "import sys, d4k.evaluation.figures as f; f.write_figures; print('matplotlib.pyplot' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_only_a_real_difference_is_in_colour(tmp_path: Path) -> None:
    """Grey and hollow are the others; an earlier figure that no longer holds is gone."""
    write_figures(tmp_path / "f", TWO, Comparison(("a", "b"), (DUEL,)))
    assert rgb(COLOURS[0]) in colours(tmp_path / "f" / "differences.png")
    chance = evolve(DUEL, real=False, interval=(-0.1, 0.3))
    plain = [evaluation(each.name, *each.scores) for each in TWO]
    files = write_figures(tmp_path / "f", plain, Comparison(("a", "b"), (chance,)))
    assert rgb(COLOURS[0]) not in colours(tmp_path / "f" / "differences.png")
    assert sorted(files) == sorted((tmp_path / "f").iterdir())
    assert len(files) == 4  # no values, no histograms


def test_nothing_to_draw_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    with pytest.raises(DataError, match="no score to draw"):
        write_figures(tmp_path / "f", [evaluation("a")])
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "thesis.doc").touch()
    with pytest.raises(OutputError, match="g"):
        write_figures(tmp_path / "g", TWO)
    assert [path.name for path in tmp_path.rglob("*")] == ["g", "thesis.doc"]


@pytest.mark.parametrize(
    ("name", "lines", "shown"),
    [
        ("short", 2, "short"),
        ("stable-diffusion-3.5-large-upscaled", 2, "stable-diffusion-3.5-large-\nupscaled"),
        ("stable-diffusion-3.5-large-upscaled", 1, "stable-diffusi…-large-upscaled"),
        ("x" * 31, 2, "x" * 30 + "\nx"),
        ("$a$\n\x1b", 2, r"\$a\$"),
    ],
)
def test_a_long_name_is_broken_where_a_word_ends(name: str, lines: int, shown: str) -> None:
    """And loses its middle where it is too long, since its end tells a run from another."""
    assert label(name, lines) == shown


@pytest.mark.parametrize("length", [29, 30, 31, 59, 60, 61, 300])
@pytest.mark.parametrize("filler", ["x", "ab-", "- ", "a-b_c d/e"])
def test_a_label_never_outgrows_its_room(length: int, filler: str) -> None:
    """Two lines of thirty."""
    lines = label((filler * length)[:length]).split("\n")
    assert len(lines) <= 2
    assert max(map(len, lines)) <= 30
