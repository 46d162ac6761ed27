"""A run is a function of its configuration and seed, wherever it stopped and however it went on: bit by bit."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from safetensors.torch import load_file
from torch import Tensor

from d4k import Pipeline
from d4k.config import RunConfig
from d4k.models import RunFolder
from d4k.training import MSELoss, read_losses, train

Config = Callable[..., Any]
STEPS, PASSES = 7, 2
SETTINGS: dict[str, Any] = {
    "training": {"steps": STEPS, "save_every": 2, "caption_dropout": 0.3, "accumulation": PASSES, "keep_last": 0},
    "data": {"crop": "random", "flip": True, "cache": "off", "workers": 0},
    "schedule": {"name": "cosine", "warmup_steps": 2},
    "optimizer": {"lr": 1e-2},
}
MSE = MSELoss.__call__


class Stop(Exception):
    """An interruption from outside."""


class Stopped:
    """A loss in whose n-th call the run is broken off, or told to stop."""

    def __init__(self, call: int, number: int | None = None) -> None:
        self.left, self.number = call, number

    def __call__(self, velocity: Tensor, step: Any) -> Tensor:
        self.left -= 1
        if not self.left and self.number is None:
            raise Stop
        if not self.left and self.number is not None:
            os.kill(os.getpid(), self.number)
        return MSE(MSELoss(), velocity, step)


def left(folder: Path) -> dict[str, Any]:
    """What a run leaves, but for times: losses, and weights, optimizer and schedule of its last checkpoint."""
    run = RunFolder(folder)
    state = run.state(len(read_losses(folder)))
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in read_losses(folder)]
    rest = torch.load(state / "optimizer.pt", weights_only=True)
    return {"rows": rows, "weights": load_file(state / "trainable.safetensors"), **rest}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


WAYS: dict[str, dict[str, Any]] = {
    "full": {},
    "adapter": {"adapter": {"rank": 2, "targets": ["into", "out"], "dropout": 0.5}},
}


@pytest.fixture
def whole(fresh: Any, dataset: Any, run_config: Config) -> Callable[[str], dict[str, Any]]:
    """`whole(way)`: what a run leaves that nobody disturbed."""

    def make(way: str) -> dict[str, Any]:
        if way not in done:
            config = run_config(f"whole {way}", **SETTINGS, **WAYS[way])
            done[way] = left(train(fresh(), dataset, MSELoss(), config).output_dir)
        return done[way]

    return make


done: dict[str, dict[str, Any]] = {}
"""What `whole` has found already."""


@pytest.mark.parametrize(
    ("way", "at"),
    [*(("full", at) for at in range(1, STEPS * PASSES + 1)), ("adapter", 3), ("adapter", 6), ("adapter", 9)],
)
def test_broken_off_at_any_pass_and_resumed_elsewhere(
    fresh: Any, dataset: Any, run_config: Config, whole: Any, way: str, at: int
) -> None:
    """In the middle of an accumulation too: it goes on from the last checkpoint, or begins again, in a new process."""
    config = run_config("parts", **SETTINGS, **WAYS[way])
    with pytest.raises(Stop):
        train(fresh(), dataset, Stopped(at), config)
    torch.manual_seed(at)  # nothing depends on the global generator
    train(fresh(), dataset, MSELoss(), config, resume=True)
    assert equal(left(Path(config.output_dir)), whole(way))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows raises KeyboardInterrupt at once")
@pytest.mark.parametrize(
    ("way", "step"), [*(("full", step) for step in range(1, STEPS + 1)), ("adapter", 1), ("adapter", 4)]
)
def test_interrupted_after_any_step_and_resumed_in_the_same_session(
    fresh: Any, dataset: Any, run_config: Config, whole: Any, way: str, step: int
) -> None:
    """With the model that is in memory, more than once."""
    backbone, config = fresh(), run_config("parts", **SETTINGS, **WAYS[way])
    for number in (step, 1) if step < STEPS else (step,):
        resume = Path(config.output_dir).exists()
        with pytest.raises(KeyboardInterrupt):
            train(backbone, dataset, Stopped(PASSES * number - 1, signal.SIGINT), config, resume=resume)
    train(backbone, dataset, MSELoss(), config, resume=True)
    expected, found = whole(way), left(Path(config.output_dir))
    assert equal(found, expected)


def test_loading_ahead_changes_nothing(fresh: Any, dataset: Any, run_config: Config, whole: Any) -> None:
    """With workers, with others after a stop, and without: one run."""
    config = run_config("parts", **SETTINGS)
    for workers, at in ((2, 5), (0, 3), (1, None)):
        now = evolve(config, data=evolve(config.data, workers=workers))
        resume = Path(config.output_dir).exists()
        if at is not None:
            with pytest.raises(Stop):
                train(fresh(), dataset, Stopped(at), now, resume=resume)
        else:
            train(fresh(), dataset, MSELoss(), now, resume=resume)
    assert equal(left(Path(config.output_dir)), whole("full"))


@pytest.mark.parametrize("way", ["full", "adapter"])
@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_a_pipeline_goes_on_where_it_was_interrupted(tmp_path: Path, model: str, way: str) -> None:
    """The models of the demo, in the session that was interrupted and in another."""
    settings: dict[str, Any] = {"dataset": "sample-photos", "dataset_options": {"names": ["coffee", "rocket"]}}
    settings |= {"width": 64, "height": 64, "steps": 4, "lr": 1e-3, "loss": "mse", "cache": "off", "workers": 0}
    settings |= {"adapter_rank": 2} if way == "adapter" else {}

    def interrupt(step: int, loss: float) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    whole = Pipeline.from_pretrained(model, device="cpu").train(**settings, output_dir=tmp_path / "whole")
    pipe, parts = Pipeline.from_pretrained(model, device="cpu"), tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        pipe.train(**settings, output_dir=parts, on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        pipe.train(**settings, output_dir=parts, resume=True, on_step=interrupt)
    assert pipe.train(**settings, output_dir=parts, resume=True).losses == whole.losses
    assert equal(left(parts), left(whole.output_dir))


def test_what_a_run_is_does_not_depend_on_how_often_it_saves(
    fresh: Any, dataset: Any, run_config: Config, whole: Any
) -> None:
    """Nor on what it keeps."""
    settings = {**SETTINGS, "training": {**SETTINGS["training"], "save_every": 1, "keep_last": 1, "keep_every": 3}}
    config: RunConfig = run_config("often", **settings)
    assert equal(left(train(fresh(), dataset, MSELoss(), config).output_dir), whole("full"))
