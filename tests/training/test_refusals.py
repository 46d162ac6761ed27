"""What would waste a night is refused, in one sentence that says what to do, before a weight is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from d4k import Placement, Sample
from d4k.adapters import add_adapter
from d4k.config import RunConfig, TrainingSettings
from d4k.datasets import FolderDataset
from d4k.errors import ConfigError, D4KError, DataError, OutputError
from d4k.models import RunFolder
from d4k.processes import Processes
from d4k.training import Bucket, Chosen, choose_pictures, train, train_from_config
from d4k.training.caching import fill_cache
from d4k.training.data.measured import Measured
from d4k.training.disk import disk_of, free_disk, kept_at_once
from d4k.training.losses import MSELoss
from d4k.training.refusals import outline, refuse_few_pictures, refuse_hopeless, refuse_pictures, refuse_precision

Config = Callable[..., RunConfig]
CPU = torch.device("cpu")


@pytest.fixture
def unread(fake_plugin: None, backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the model's weights ends the test."""
    outlined = type(backbone).load

    def load(self: Any, placement: Placement) -> None:
        assert placement.device.type == "meta", "the weights were read"
        outlined(self, placement)

    monkeypatch.setattr(type(backbone), "load", load)


def full_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """From now on every disk has so many bytes left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**15, used=0, free=free))


def needed_by(config: RunConfig) -> int:
    """Bytes that a run of the folder of pictures writes, with its cache."""
    backbone = outline(config)
    assert backbone is not None
    dataset = FolderDataset(**config.dataset.options)
    disk = disk_of(backbone, config, choose_pictures(dataset, backbone, config))
    return disk.needed + disk.latents


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.glob("*"))


@pytest.fixture
def folder(photos: Path) -> dict[str, Any]:
    """The dataset of five pictures, as a configuration names it."""
    return {"name": "folder", "options": {"path": str(photos)}}


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"schedule": {"name": "linear", "warmup_steps": 4}},
            ConfigError,
            r"warmup_steps = 4 is not less than training\.steps = 4: .* never reach 0\.0001; lower",
        ),
        ({"training": {"precision": "fp16"}}, ConfigError, r"'fp16' needs a GPU, .* on 'cpu': choose 'bf16'"),
        ({"optimizer": {"lr": 0}}, ConfigError, r"optimizer\.lr must be a number above 0"),
    ],
)
def test_settings_that_train_nothing(
    settings: dict[str, Any], error: type[D4KError], message: str, folder: dict[str, Any], run_config: Config
) -> None:
    """A learning rate that never arrives or is none, a precision that the device lacks."""
    with pytest.raises(error, match=message):
        train_from_config(run_config(dataset=folder, **settings))


@pytest.mark.usefixtures("unread")
def test_disk_without_room_for_the_checkpoints_that_stay(
    folder: dict[str, Any], run_config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message says how much is needed and how much is free, and nothing is made."""
    config = run_config(dataset=folder, training={"steps": 6, "save_every": 1}, data={"cache": "auto"})
    needed = needed_by(config)
    full_disk(monkeypatch, needed - 1)
    with pytest.raises(OutputError, match=r"needs 0\.0 GB of disk for 3 checkpoints of .* lower training\.keep_last"):
        train_from_config(config)
    assert not (tmp_path / "run").exists()
    full_disk(monkeypatch, needed)
    with pytest.raises(AssertionError, match="the weights were read"):
        train_from_config(config)


@pytest.mark.usefixtures("unread")
def test_nothing_is_left_after_filtering(folder: dict[str, Any], run_config: Config, tmp_path: Path) -> None:
    """Which the headers of the pictures say."""
    with pytest.raises(DataError, match=r"nothing is left to train on: 5 of 5 pictures .* smaller than 32x32"):
        train_from_config(run_config(dataset=folder, data={"width": 32, "height": 32}))
    assert not (tmp_path / "run").exists()


def test_a_header_is_read_once(photos: Path) -> None:
    """And a picture that cannot be read has no size, rather than an error before anybody asks for it."""
    opened: list[str] = []
    (photos / "1.png").write_bytes(b"no picture")

    class Counted(FolderDataset):
        def __getitem__(self, index: int, /) -> Sample:
            sample = super().__getitem__(index)
            return evolve(sample, source=lambda: opened.append(sample.id) or Path(sample.source).open("rb"))

    measured = Measured(Counted(photos))
    for _ in range(2):
        assert [measured[index].size for index in range(len(measured))] == [(24, 20), None, *[(24, 20)] * 3]
    assert opened == ["0.png", "1.png", "2.png", "3.png", "4.png"]


def test_processes_that_share_a_picture_need_one_picture(backbone: Any, photos: Path, run_config: Config) -> None:
    """Five pictures are enough for ten processes of which two share each."""
    config = run_config(parallel={"context": 2})
    refuse_hopeless(config, FolderDataset(photos), torch.device("cpu"), 10)
    assert refuse_pictures(backbone, FolderDataset(photos), config, 10).count == 5
    with pytest.raises(DataError, match="cannot keep 6 processes busy"):
        refuse_hopeless(config, FolderDataset(photos), torch.device("cpu"), 12)


@pytest.mark.usefixtures("unread")
def test_folder_that_cannot_be_written(folder: dict[str, Any], run_config: Config, tmp_path: Path) -> None:
    """Below a file, for instance; root may write everywhere else."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write .*file/run: Not a directory"):
        train_from_config(run_config("file/run", dataset=folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


def test_fewer_pictures_than_processes() -> None:
    """Each process trains on other pictures at a time; as many as processes are enough."""
    refuse_few_pictures(3, 3)
    with pytest.raises(DataError, match="2 pictures cannot keep 3 processes busy.* start 2 processes at most"):
        refuse_few_pictures(2, 3)
    with pytest.raises(DataError, match="the dataset is empty"):
        refuse_few_pictures(0, 1)


def test_gpu_may_compute_in_float16_and_the_cpu_in_bfloat16(
    run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU can in bfloat16 it is asked."""
    refuse_precision(run_config(training={"precision": "bf16"}), CPU)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a T4")
    with pytest.raises(ConfigError, match="'bf16' is more than a T4 can: choose 'fp16' or 'no'"):
        refuse_precision(run_config(training={"precision": "bf16"}), torch.device("cuda"))


def test_python_is_refused_the_same(
    backbone: Any, photos: Path, run_config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A loaded model is not trained either, and the folder is as it was."""
    full_disk(monkeypatch, 100)
    with pytest.raises(OutputError, match="0.0 GB are free there: make room, or name an output_dir on another disk"):
        train(backbone, FolderDataset(photos), MSELoss(), run_config())
    assert not (tmp_path / "run").exists()


@given(steps=st.integers(1, 40), every=st.integers(0, 12), last=st.integers(0, 6), multiples=st.integers(0, 30))
def test_checkpoints_are_counted_as_they_come_and_go(steps: int, every: int, last: int, multiples: int) -> None:
    """As a run writes them: a new one first, and then the old ones go."""
    settings = TrainingSettings(steps=steps, save_every=every, keep_last=last, keep_every=multiples)
    there: list[int] = []
    most = 0
    for step in range(1, steps + 1):
        if step == steps or (every and step % every == 0):
            there.append(step)
            most = max(most, len(there))
            old = there[:-last] if last else []
            there = [at for at in there if at not in old or (multiples and at % multiples == 0)]
    assert kept_at_once(settings) == (most, len(there))


def test_disk_is_what_a_run_leaves(backbone: Any, photos: Path, run_config: Config) -> None:
    """Weights and optimizer state of each checkpoint that stays, and the model, but for their headers."""
    config = run_config(training={"steps": 3, "save_every": 1, "keep_last": 1, "keep_every": 2})
    dataset = FolderDataset(photos)
    disk = disk_of(backbone, config, choose_pictures(dataset, backbone, config))
    run = train(backbone, dataset, MSELoss(), config)
    states = RunFolder(run.output_dir).states()
    assert len(states) == disk.left == 2
    assert disk.checkpoint <= size_of(states[-1]) < disk.checkpoint + 10_000
    assert disk.result <= size_of(run.model) < disk.result + 2_000


def test_disk_of_an_adapter(run_config: Config) -> None:
    """It alone is kept, in float32, with two moments and an average of each number."""
    config = run_config(
        model="tiny-sd3",
        adapter={"rank": 3},
        training={"precision": "bf16"},
        ema={},
        data={"cache": "auto", "cache_dtype": "bfloat16"},
    )
    backbone = outline(config)
    assert backbone is not None
    assert config.adapter is not None
    disk = disk_of(backbone, config, Chosen([], (Bucket(256, 512, (0, 1)),)))
    add_adapter(backbone.trainable, config.adapter)
    numbers = sum(parameter.numel() for parameter in backbone.trainable.parameters() if parameter.requires_grad)
    assert (disk.result, disk.checkpoint) == (4 * numbers, 16 * numbers)
    assert disk.latents == 2 * (16 * 32 * 64) * 2 * 2, "mean and log-variance, two bytes each"


def test_resumed_run_needs_room_for_the_rest_alone(
    backbone: Any, photos: Path, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints are on the disk already."""
    config = run_config(training={"steps": 4, "save_every": 1}, data={"cache": "auto"})
    dataset = FolderDataset(photos)
    train(backbone, dataset, MSELoss(), config)
    disk = disk_of(backbone, config, choose_pictures(dataset, backbone, config))
    assert disk.latents == 0, "the cache is there already"
    left = disk.needed - 2 * disk.checkpoint
    full_disk(monkeypatch, left)
    refuse_pictures(backbone, dataset, config)
    full_disk(monkeypatch, left - 1)
    with pytest.raises(OutputError, match="make room"):
        refuse_pictures(backbone, dataset, config)


def test_model_that_cannot_be_outlined_is_left_to_loading(run_config: Config) -> None:
    """Which says what is wrong with it."""
    assert outline(run_config(model="no-such-model")) is None


def test_free_disk_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    """Which there is."""
    assert free_disk(tmp_path / "a" / "b") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_cache_of_another_autoencoder(backbone: Any, photos: Path, run_config: Config, tmp_path: Path) -> None:
    """One that is named, and holds nothing of this model; with a latent of its own it is taken."""
    dataset, config = FolderDataset(photos), run_config(data={"cache": str(tmp_path / "cache")})
    other = type(backbone)()
    other.load(Placement(CPU, torch.float32))
    other.vae = torch.nn.Linear(2, 2)
    train(other, dataset, MSELoss(), run_config("other", data={"cache": str(tmp_path / "cache")}))
    with pytest.raises(ConfigError, match=r"cache' holds 5 latents, and none is of the autoencoder of 'fake-model'"):
        train(backbone, dataset, MSELoss(), config)
    assert not (tmp_path / "run").exists()
    fill_cache(backbone, choose_pictures(dataset, backbone, config), config, Processes())
    assert len(train(backbone, dataset, MSELoss(), config).losses) == 4
