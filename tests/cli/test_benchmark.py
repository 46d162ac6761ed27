"""`d4k benchmark`: the table, the report, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from d4k.cli import main


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["benchmark", *arguments, "--device", "cpu"])


@pytest.fixture
def given(photos: Path, fake_plugin: None, tmp_path: Path) -> list[str]:
    """The fake model on pictures of 24x20, cut to 20x20."""
    dataset = ["--dataset", "folder", "--dataset-option", f"path={photos}"]
    return [
        "--model",
        "fake-model",
        *dataset,
        "--size",
        "20",
        "--metric",
        "brightness",
        "--output",
        str(tmp_path / "b"),
    ]


def test_the_table_has_a_row_for_photographs_model_and_upscaled(given: list[str], tmp_path: Path) -> None:
    """Without a report where none is asked for."""
    result = call(*given, "--no-report")
    assert result.exit_code == 0, result.output
    lines = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    place = lines.index("photographs")
    assert lines[place : place + 3] == ["photographs", "fake-model", "fake-model-upscaled"]
    assert "also sampled at 16x16, its own size, and enlarged by lanczos" in result.stderr
    assert not (tmp_path / "b" / "report").exists()


def test_options_reach_the_metric_the_dataset_and_the_sampling(given: list[str], tmp_path: Path) -> None:
    """The manifest records them."""
    more = [
        "--metric-option",
        "brightness.scale=2.0",
        "--limit",
        "2",
        "--steps",
        "2",
        "--guidance",
        "1.5",
        "--seed",
        "7",
    ]
    assert call(*given, *more, "--option", "seed=3", "--no-report").exit_code == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["metrics"] == [{"name": "brightness", "options": {"scale": 2.0}}]
    assert len(manifest["dataset"]["pictures"]) == 2
    assert (manifest["steps"], manifest["guidance"], manifest["seed"]) == (2, 1.5, 7)
    assert manifest["models"][0]["options"] == {"seed": 3}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model", "fake-modle"], "did you mean 'fake-model'"),
        (["--model", "other/model", "--revision", "main"], "--revision belongs to one model, and 2 are given"),
        (["--model", "other/model", "--adapter", "style"], "--adapter belongs to one model, and 2 are given"),
        (["--width", "20"], "--size is width and height in one"),
        (["--metric-option", "brightnes.scale=2"], "did you mean 'brightness'"),
        (["--metric-option", "scale=2"], "write NAME.KEY=VALUE"),
        (["--model", "fake-model"], "model 'fake-model' is given twice"),
    ],
)
def test_what_cannot_work_is_one_line_and_leaves_nothing(
    given: list[str], tmp_path: Path, more: list[str], words: str
) -> None:
    result = call(*given, *more)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "b").exists()
