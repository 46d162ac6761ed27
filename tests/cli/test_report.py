"""`d4k report`: from folders of evaluations to a page, and one line where that cannot be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from d4k.cli import main
from d4k.evaluation import Measuring, Subject, measure
from d4k.plugins import create
from d4k.report import openseadragon
from d4k.report.data import PREFIX


@pytest.fixture(autouse=True)
def here(fake_plugin: None, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Beside an evaluation of the photos, with the fake metric, and with a viewer that needs no network."""
    viewer = tmp_path / "viewer"
    viewer.mkdir()
    for name in openseadragon.FILES:
        (viewer / name).write_text("the viewer")
    monkeypatch.setattr(openseadragon, "PACKAGED", viewer)
    monkeypatch.setattr(openseadragon, "is_whole", lambda folder: folder == viewer)
    monkeypatch.chdir(tmp_path)
    subjects = [Subject(file.stem, file) for file in sorted(photos.glob("*.png"))]
    settings = Measuring(output=Path("scores"), device="cpu", resamples=10, name="mine")
    measure(subjects, {"brightness": create("metric", "brightness")}, settings)


def test_the_command_prints_the_page_and_takes_a_title() -> None:
    """In the folder `report` unless another is named; a second run replaces it."""
    for title, arguments in (("d4k report", []), ("Mine", ["--title", "Mine"])):
        result = CliRunner().invoke(main, ["report", "scores", *arguments])
        assert (result.exit_code, result.stdout) == (0, f"{Path('report') / 'index.html'}\n"), result.output
        data = json.loads(Path("report", "data.js").read_text()[len(PREFIX) : -2])
        assert (data["title"], data["sets"][0]["name"], len(data["rows"])) == (title, "mine", 5)
    result = CliRunner().invoke(main, ["report", "scores/scores.json", "--output", "deep/other"])
    assert result.exit_code == 0, result.output
    assert Path("deep/other/index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "there is no folder missing"),
        (("photos",), "photos holds neither scores.json nor"),
        (("scores", "scores"), "scores is named 2 times"),
        (("scores", "--output", "photos"), "photos exists and is no report of d4k"),
        (("scores", "--output", "scores"), "scores exists and is no report of d4k"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    """And code 2; what lay in the folder lies there still."""
    result = CliRunner().invoke(main, ["report", *arguments])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert message in result.stderr
    assert Path("scores/scores.json").is_file()
    assert Path("photos/0.png").is_file()


def test_the_help_of_the_command_loads_nothing_heavy() -> None:
    """It is shown in an instant."""
    code = (
        "import sys; from click.testing import CliRunner; from d4k.cli import main;"
        "result = CliRunner().invoke(main, ['report', '--help']); assert result.exit_code == 0, result.output;"
        "assert '--votes' in result.output;"
        "assert not {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
