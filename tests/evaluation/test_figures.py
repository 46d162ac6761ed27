"""Figures: files of two kinds, whole or not at all, whatever systems are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d4k.errors import DataError, OutputError
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.figures import COLOURS, write_figures
from d4k.evaluation.result import Evaluation, Picture
from d4k.protocols import Score


def system(name: str, value: float) -> Evaluation:
    pictures = tuple(Picture(str(k), f"{k}.png", "0" * 64, 8, 8, values={"m": value + k / 10}) for k in range(8))
    return Evaluation(name, (Score("m", value, "bits", 8, True, interval=(value - 1, value + 1)),), pictures)


def test_scores_differences_and_histograms_are_drawn(tmp_path: Path) -> None:
    """As PNG and PDF; each system in its colour, a dollar in a name begins no formula."""
    systems = [system("cost $1", 1.0), system("a name that is very much longer than there is room for $", 3.0)]
    found = Difference("m", *(each.name for each in systems), 1.0, 3.0, 2.0, (1.0, 3.0), None, 0, 0, 0, 8, True)
    files = write_figures(tmp_path / "f", systems, Comparison(tuple(each.name for each in systems), (found,)))
    assert sorted(file.name for file in files) == sorted(file.name for file in (tmp_path / "f").iterdir())
    assert len(files) == 6
    assert all((file.read_bytes()[:5] == b"%PDF-") == (file.suffix == ".pdf") for file in files)
    with Image.open(tmp_path / "f" / "scores.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in COLOURS[:2]:
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (pixels == wanted).all(1).sum() > 50


def test_figures_replace_figures_and_nothing_else(tmp_path: Path) -> None:
    write_figures(tmp_path / "f", [system("a", 1.0)])
    files = write_figures(tmp_path / "f", [system("a", 2.0)])
    assert {file.name for file in files} == {f"{n}.{e}" for n in ("scores", "histograms") for e in ("png", "pdf")}
    (tmp_path / "f" / "mine.txt").touch()
    with pytest.raises(OutputError, match="is not empty"):
        write_figures(tmp_path / "f", [system("a", 1.0)])
    with pytest.raises(DataError, match="there is no score to draw"):
        write_figures(tmp_path / "g", [Evaluation("a", ())])
