"""One step: what a gradient scaler learns of a gradient that is not finite, and which pictures are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from d4k.config import RunConfig
from d4k.training import Batch, Encoding, Feed, MSELoss, choose_pictures
from d4k.training.engine import Engine, make_engine
from d4k.training.step import StepResult, training_step

Config = Callable[..., Any]
CPU = torch.device("cpu")
Parts = tuple[Engine, Any, Iterator[Batch], RunConfig]


class Spoilt:
    """A loss that is not finite, or only its gradient, in some of its calls, counted from 1."""

    def __init__(self, calls: set[int], *, gradient_alone: bool = False) -> None:
        self.calls, self.gradient_alone, self.called = calls, gradient_alone, 0

    def __call__(self, velocity: Tensor, step: Any) -> Tensor:
        self.called += 1
        loss = MSELoss()(velocity, step)
        if self.called not in self.calls:
            return loss
        if self.gradient_alone:
            return loss + (velocity - velocity.detach()).abs().sqrt().sum()  # 0, and its slope is infinite
        return loss * math.nan


@pytest.fixture
def half(backbone: Any, dataset: Any, run_config: Config) -> Callable[[], Parts]:
    """`half()`: the parts of a step in float16 with a gradient scaler, which accelerate leaves out on a CPU."""

    def make() -> Parts:
        config = run_config(training={"precision": "fp16", "batch_size": 2, "accumulation": 2})
        engine = make_engine(config, CPU)
        engine.accelerator.native_amp = True
        engine.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        backbone.trainable.requires_grad_(True).train()
        backbone.trainable = engine.wrap(backbone.trainable)
        optimizer = engine.wrap_optimizer(torch.optim.AdamW(backbone.trainable.parameters(), lr=0.1))
        chosen = choose_pictures(dataset, backbone, config)
        return engine, optimizer, Feed(Encoding(backbone, dataset), chosen, config, CPU).batches(0, 4), config

    return make


@pytest.mark.parametrize("gradient_alone", [True, False])
def test_a_scaler_lowers_its_scale_and_the_weights_stay(backbone: Any, half: Any, gradient_alone: bool) -> None:
    """Whatever was not finite, loss or gradient; the step after it is done with the lower scale."""
    engine, optimizer, batches, config = half()
    before = [parameter.clone() for parameter in backbone.trainable.parameters()]
    loss = Spoilt({2}, gradient_alone=gradient_alone)
    result = training_step(engine, backbone, loss, batches, config, optimizer)
    assert result.skipped
    assert math.isfinite(result.loss) is gradient_alone
    assert not math.isfinite(result.norm)
    assert engine.accelerator.scaler.get_scale() == 4.0
    assert all(map(torch.equal, before, backbone.trainable.parameters()))
    assert not optimizer.state_dict()["state"]
    assert not training_step(engine, backbone, loss, batches, config, optimizer).skipped
    assert engine.accelerator.scaler.get_scale() == 4.0
    assert not any(map(torch.equal, before, backbone.trainable.parameters()))


def test_a_scaler_goes_on_after_a_loss_whose_gradient_was_finite(backbone: Any, half: Any) -> None:
    """It has undone the scale of the skipped step's gradient, and refuses to do so twice without an update."""
    engine, optimizer, batches, config = half()
    before = [parameter.clone() for parameter in backbone.trainable.parameters()]
    calls = iter((math.inf, 0.0, 0.0, 0.0))

    def loss(velocity: Tensor, step: Any) -> Tensor:
        return MSELoss()(velocity, step) + next(calls)

    result = training_step(engine, backbone, loss, batches, config, optimizer)
    assert result.skipped
    assert math.isfinite(result.norm)
    assert all(map(torch.equal, before, backbone.trainable.parameters()))
    assert not training_step(engine, backbone, loss, batches, config, optimizer).skipped
    assert engine.accelerator.scaler.get_scale() == 8.0


@pytest.mark.parametrize("calls", [{1}, {2}, {1, 2}, set()])
def test_the_pictures_of_the_passes_that_failed_are_named(
    backbone: Any, dataset: Any, run_config: Config, calls: set[int]
) -> None:
    """Not those of the other passes of the step; none of a step that is done."""
    config = run_config(training={"batch_size": 2, "accumulation": 2})
    engine = make_engine(config, CPU)
    feed = Feed(Encoding(backbone, dataset), choose_pictures(dataset, backbone, config), config, CPU)
    expected = tuple(name for call in sorted(calls) for name in feed.batch(call - 1).ids)
    optimizer = torch.optim.AdamW(backbone.trainable.parameters())
    result: StepResult = training_step(engine, backbone, Spoilt(calls), feed.batches(0, 2), config, optimizer)
    assert (result.skipped, result.ids) == (bool(calls), expected)


def test_where_the_gradient_alone_failed_all_pictures_are_named(
    backbone: Any, dataset: Any, run_config: Config
) -> None:
    config = run_config(training={"batch_size": 2, "accumulation": 2})
    engine = make_engine(config, CPU)
    feed = Feed(Encoding(backbone, dataset), choose_pictures(dataset, backbone, config), config, CPU)
    optimizer = torch.optim.AdamW(backbone.trainable.parameters())
    loss = Spoilt({2}, gradient_alone=True)
    result = training_step(engine, backbone, loss, feed.batches(0, 2), config, optimizer)
    assert (result.skipped, result.ids) == (True, (*feed.batch(0).ids, *feed.batch(1).ids))
    assert not optimizer.state_dict()["state"]
