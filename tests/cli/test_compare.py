"""`d4k compare`: from two measured folders to tables, files and figures, and refusals of one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from d4k.cli import main
from d4k.evaluation import Measuring, find_subjects, measure, metrics_by_name


@pytest.fixture(autouse=True)
def here(fake_plugin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two systems of four pictures, `old` and `new`; the new ones are brighter."""
    monkeypatch.chdir(tmp_path)
    for name, shift in (("old", 0), ("new", 20)):
        (tmp_path / name).mkdir()
        for number in range(4):
            pixels = np.full((8, 8, 3), 40 * number + shift + number % 2, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
        settings = Measuring(output=tmp_path / f"{name}-scores", name=name, workers=1, resamples=50)
        measure(find_subjects(tmp_path / name), metrics_by_name(["brightness"]), settings)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["compare", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["compare", *arguments])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    return str(result.stderr)


def test_two_folders_become_a_line_a_metric() -> None:
    lines = run("old-scores", "new-scores").splitlines()
    assert lines[0] == "new against old"
    assert lines[3].split()[:6] == ["brightness", "[levels]", "↑", "60.5000", "80.5000", "+20.0000"]
    assert lines[3].split()[8:] == ["yes", "new", "0.1250", "0.1250", "4", "0", "0", "4"]


def test_votes_and_files_are_written(tmp_path: Path) -> None:
    vote = {"row": "0", "prompt": None, "a": "old", "b": "new", "choice": "b", "left": "a", "seconds": 1}
    Path("v.json").write_text(json.dumps({"format": 1, "kind": "d4k-votes", "votes": [vote] * 3}))
    files = ("--json", "c.json", "--markdown", "c.md", "--latex", "c.tex", "--figures", "figures")
    assert "new over old  100 % [44, 100]" in run("old-scores", "new-scores", "--votes", "v.json", *files)
    assert json.loads(Path("c.json").read_text())["differences"][0]["real"] is True
    assert Path("c.md").read_text().startswith("## new against old")
    assert r"new & \textbf{" in Path("c.tex").read_text()
    assert len(list(Path("figures").iterdir())) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("old-scores",), "it takes two systems to compare, got 1"),
        (("old-scores", "old"), "old holds neither scores.json nor the manifest.json of a benchmark"),
        (("old-scores", "none"), "there is no folder none"),
        (("old-scores", "new-scores", "--json", "c.txt"), "cannot write 'c.txt': the ending must be .json"),
        (("old-scores", "new-scores", "--votes", "none.json"), "cannot read none.json"),
    ],
)
def test_what_cannot_be_compared_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(*arguments)
