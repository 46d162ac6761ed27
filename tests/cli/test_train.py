"""`d4k train --dry-run`: the plan of a run, in lines that a person reads before the night."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from d4k.cli import main

pytestmark = pytest.mark.usefixtures("fake_plugin")


@pytest.fixture
def recipe(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of the fake model over five pictures that fit and four that are too small, one of them unnamed."""
    for number in range(4):
        Image.new("RGB", (8, 8)).save(photos / f"small-{number}.png")
        (photos / f"small-{number}.txt").write_text("small")
    file = tmp_path / "run.toml"
    file.write_text(
        'model = "fake-model"\noutput_dir = "runs/night"\nloss.name = "mse"\n'
        '[dataset]\nname = "folder"\noptions.path = "photos"\n'
        "[training]\nsteps = 2000\nbatch_size = 2\naccumulation = 5\nsave_every = 100\nkeep_last = 2\n"
    )
    monkeypatch.chdir(tmp_path)
    return file


def planned(*arguments: str) -> Result:
    """What the command line prints."""
    return CliRunner().invoke(main, ["train", *arguments, "--dry-run"])


def test_plan_is_readable(recipe: Path) -> None:
    """A line a thing, its name first, units behind; pictures that are left out are counted, and the first named."""
    result = planned("run.toml")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "dry run of runs/night: nothing was trained, and nothing was written there"
    rows = {line[:14].rstrip(): line[14:] for line in lines[1:] if line[:14].strip()}
    assert rows["model"] == "fake-model"
    assert re.fullmatch(r"all [\d,]+ parameters of the denoiser", rows["trained"])
    assert rows["pictures"] == "5 of 9 of 'folder'"
    assert rows["left out"] == "4, the first of them:"
    assert [line.strip() for line in lines if "smaller than" in line] == [
        f"small-{number}.png: 8x8, smaller than 16x16" for number in range(3)
    ]
    assert rows["a step"] == "10 pictures = 2 pictures x 5 passes x 1 process"
    assert rows["an epoch"] == "0.5 steps"
    assert rows["the run"] == "2,000 steps = 4,000.0 epochs"
    assert "".join(lines[lines.index("cut to" + " " * 8 + rows["cut to"]) + 1].split()) == "16x16516"
    assert re.fullmatch(r"3 of 0\.\d MB at once, 2 in the end", rows["checkpoints"])
    assert re.fullmatch(r"[\d.]+ s, the median of 3 \([\d.]+ to [\d.]+ s\)", rows["time a step"])
    assert rows["in all"].endswith("for 2,000 steps")
    assert max(map(len, lines)) <= 120


def test_nothing_is_written(recipe: Path) -> None:
    """Not even the folders above that of the run."""
    before = sorted(recipe.parent.rglob("*"))
    assert planned("run.toml", "--set", "data.cache=off").exit_code == 0
    assert sorted(recipe.parent.rglob("*")) == before


def test_refusal_is_one_line(recipe: Path) -> None:
    """As of the run itself."""
    result = planned("run.toml", "--set", "data.width=32", "--set", "data.height=32")
    assert result.exit_code == 2
    assert "nothing is left to train on: 9 of 9 pictures" in result.output
