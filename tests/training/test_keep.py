"""Which checkpoints stay; what a disk without room for one leaves."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from d4k import files
from d4k.config import TrainingSettings
from d4k.errors import OutputError
from d4k.models import RunFolder
from d4k.training import MSELoss, State, train
from d4k.training.keep import checkpoint_bytes, is_due, remove_old

Config = Callable[..., Any]


def kept(run: RunFolder) -> list[int]:
    return [int(state.name[5:]) for state in run.states()]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [9, 10]),
        ({"keep_last": 1}, [10]),
        ({"keep_last": 3}, [8, 9, 10]),
        ({"keep_last": 0}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"keep_last": 1, "keep_every": 4}, [4, 8, 10]),
        ({"keep_last": 0, "keep_every": 4}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"keep_last": 20}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
    ],
)
def test_newest_and_every_nth_stay(
    backbone: Any, dataset: Any, run_config: Config, settings: dict[str, int], steps: list[int]
) -> None:
    config = run_config(training={"steps": 10, "save_every": 1, **settings})
    run = RunFolder(train(backbone, dataset, MSELoss(), config).output_dir)
    assert kept(run) == steps
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [f"step-{step:08d}" for step in steps]


def test_a_checkpoint_is_due_every_n_steps_and_at_the_end() -> None:
    settings = TrainingSettings(steps=7, save_every=3)
    assert [step for step in range(1, 8) if is_due(step, settings)] == [3, 6, 7]
    assert [step for step in range(1, 8) if is_due(step, TrainingSettings(steps=7, save_every=0))] == [7]


def test_an_old_one_goes_only_once_the_new_one_is_whole(
    fresh: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full, or a kill, leaves one more and never one fewer."""
    config = run_config(training={"save_every": 1, "keep_last": 1})
    seen: list[list[int]] = []
    run = RunFolder(Path(config.output_dir))
    swap = files._swap

    def look(new: Path, path: Path) -> None:
        if path.name.startswith("step-"):
            seen.append(kept(run))
        swap(new, path)

    monkeypatch.setattr(files, "_swap", look)
    train(fresh(), dataset, MSELoss(), config)
    assert seen == [[], [1], [2], [3]]


def test_a_half_removed_checkpoint_is_none(
    fresh: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while its files are removed, it is not under its name any more; the next start removes the rest."""
    config = run_config(training={"save_every": 1, "keep_last": 2})

    remove = shutil.rmtree

    def half(path: Any, **settings: Any) -> None:
        for state in Path(path).glob("step-00000001"):
            (state / "optimizer.pt").unlink()
            raise KeyboardInterrupt
        remove(path, **settings)

    monkeypatch.setattr(shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(), dataset, MSELoss(), config)
    monkeypatch.undo()
    run = RunFolder(Path(config.output_dir))
    assert kept(run) == [2, 3]
    assert list(run.checkpoints.glob(".d4k-*.part/step-00000001"))
    train(fresh(), dataset, MSELoss(), config, resume=True)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == ["step-00000003", "step-00000004"]


def test_a_full_disk_says_what_is_needed_and_what_is_free(
    fresh: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes; the checkpoint before is whole, and the run goes on from it."""
    config, save = run_config(training={"save_every": 2}), torch.save

    def full(data: Any, path: Path) -> None:
        if "step-00000004" in str(path):
            monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(1234))
            raise OSError(errno.ENOSPC, "No space left on device")
        save(data, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError) as caught:
        train(fresh(), dataset, MSELoss(), config)
    run = RunFolder(Path(config.output_dir))
    said = str(caught.value)
    needed = int(said.split("needs about ")[1].split(" bytes")[0].replace(",", ""))
    on_disk = sum(file.stat().st_size for file in run.state(2).iterdir())
    assert "step-00000004: No space left on device" in said
    assert "and 1,234 are free; step-00000002 is whole. Make room and go on with --resume" in said
    assert 0.5 * on_disk < needed < on_disk  # these weights are few beside the headers of their files
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    assert train(fresh(), dataset, MSELoss(), config, resume=True).steps == 4


def test_the_size_of_a_checkpoint_is_known_beforehand(tmp_path: Path) -> None:
    """Of large weights to a percent: theirs, what AdamW keeps of each, and their average."""
    module = torch.nn.Linear(500, 500)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 500)).sum().backward()
    optimizer.step()
    state = State(module, optimizer, None)
    assert checkpoint_bytes(state) == pytest.approx(3 * 4 * 500 * 501, rel=0.01)
    state.ema = {name: parameter.detach() for name, parameter in module.named_parameters()}
    assert checkpoint_bytes(state) == pytest.approx(4 * 4 * 500 * 501, rel=0.01)


def test_nothing_is_removed_of_an_empty_folder(tmp_path: Path) -> None:
    remove_old(RunFolder(tmp_path), TrainingSettings())
    assert not list(tmp_path.iterdir())
