"""A dry run does all but train: what it says is what the run then does, and it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from d4k import FlowStep, Placement
from d4k.config import RunConfig
from d4k.datasets import FolderDataset
from d4k.errors import ConfigError, DataError
from d4k.models import Model, ModelRef, RunFolder, Training
from d4k.training import MSELoss, dry_run, dry_run_from_config, train

Config = Callable[..., RunConfig]


@pytest.fixture
def dataset(photos: Path) -> FolderDataset:
    """Five captioned pictures of 24x20."""
    return FolderDataset(photos)


def test_it_says_what_a_run_is(backbone: Any, photos: Path, run_config: Config) -> None:
    """Pictures and what became of each, steps of an epoch, what is trained, and what is written."""
    Image.new("RGB", (12, 40)).save(photos / "narrow.png")
    (photos / "narrow.txt").write_text("a narrow picture")
    Image.new("RGB", (40, 40)).save(photos / "untold.png")
    training = {"steps": 30, "batch_size": 2, "accumulation": 3, "save_every": 10, "keep_last": 1}
    config = run_config(training=training, data={"width": 20, "height": 16})
    dataset = FolderDataset(photos, missing_caption="skip")
    with pytest.warns(UserWarning, match=r"1 of 7 pictures in .* were skipped"):
        found = dry_run(backbone, dataset, MSELoss(), config)
    assert found.chosen.count == 5
    assert [(picture.id, picture.why) for picture in found.chosen.left_out] == [
        ("narrow.png", "12x40, smaller than 20x16")
    ]
    assert found.unusable == ("untold.png: it has no caption untold.txt beside it",)
    assert found.tokens == (5 * 4,)
    assert (found.pictures_a_step, found.steps_an_epoch, found.epochs) == (6, 5 / 6, 36)
    numbers = sum(parameter.numel() for parameter in backbone.trainable.parameters())
    assert (found.trained, found.numbers) == (numbers, numbers)
    assert (found.disk.at_once, found.disk.left, found.disk.checkpoint) == (2, 1, 12 * numbers)
    assert len(found.seconds) == 3
    assert 0 < min(found.seconds) <= found.step_seconds <= max(found.seconds)


def test_nothing_is_left_behind(backbone: Any, dataset: FolderDataset, run_config: Config, tmp_path: Path) -> None:
    """No folder, no file; and the weights, which three steps have changed, are not trained any further."""
    before = sorted(tmp_path.rglob("*"))
    config = run_config(data={"cache": "off"})
    dry_run(backbone, dataset, MSELoss(), config)
    assert sorted(tmp_path.rglob("*")) == before
    assert backbone.trainable.training is False
    with pytest.raises(ConfigError, match="the weights in memory are those of a run that was interrupted"):
        train(backbone, dataset, MSELoss(), config)


def test_run_after_it_is_as_without(backbone: Any, dataset: FolderDataset, run_config: Config) -> None:
    """With a model that is loaded again."""
    losses = train(backbone, dataset, MSELoss(), run_config("without")).losses
    for name in ("dry", "after"):
        backbone.load(Placement(torch.device("cpu"), torch.float32))
        if name == "dry":
            dry_run(backbone, dataset, MSELoss(), run_config("after"))
    assert train(backbone, dataset, MSELoss(), run_config("after")).losses == losses


def test_interrupted_run_counts_the_steps_that_are_left(
    backbone: Any, dataset: FolderDataset, run_config: Config
) -> None:
    """Of the folder of that run nothing changes."""
    train(backbone, dataset, MSELoss(), run_config())
    folder = RunFolder(Path(run_config().output_dir))
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()}
    found = dry_run(backbone, dataset, MSELoss(), run_config(training={"steps": 9}), resume=True)
    assert found.done == 4
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.is_file()} == before


def test_what_differs_from_the_models_own_training_is_named(
    backbone: Any, dataset: FolderDataset, run_config: Config
) -> None:
    """In the words that a run says it in, and once: no warning (an error here) says it as well."""
    model = Model(ModelRef("fake-model"), "fake", "", training=Training(width=32, height=32))
    found = dry_run(backbone, dataset, MSELoss(), run_config(), model=model)
    assert found.deviations == ("size 16x16, the model was trained at 32x32",)


@pytest.mark.usefixtures("fake_plugin")
def test_it_refuses_what_a_run_refuses(photos: Path, run_config: Config, tmp_path: Path) -> None:
    """Nothing to train on, and a folder in use."""
    dataset = {"name": "folder", "options": {"path": str(photos)}}
    with pytest.raises(DataError, match="nothing is left to train on"):
        dry_run_from_config(run_config(dataset=dataset, data={"width": 32, "height": 32}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").touch()
    with pytest.raises(OSError, match="is not empty"):
        dry_run_from_config(run_config(dataset=dataset))


def test_step_that_would_be_left_out_is_named(backbone: Any, dataset: FolderDataset, run_config: Config) -> None:
    """A loss that is not a number shows before the night."""

    def broken(velocity: Tensor, step: FlowStep) -> Tensor:
        return MSELoss()(velocity, step) * float("nan")

    with pytest.warns(UserWarning, match=r"step \d would be left out, since its loss is nan .* \d\.png") as said:
        dry_run(backbone, dataset, broken, run_config())
    assert len(said) == 4
