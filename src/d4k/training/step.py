"""One optimizer step: forward passes, the weighted loss, the gradient."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator

from d4k.config import RunConfig
from d4k.errors import D4KError
from d4k.flow import sigma_weight
from d4k.protocols import Backbone, FlowStep, Loss
from d4k.seeds import numbered_seed
from d4k.training.data.samples import Feed
from d4k.upstream import patch_environment, reset_accelerator

__all__ = ["make_accelerator", "training_step"]

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "FORK_LAUNCHED")
"""What a launcher sets in the environment of its one process; it would make accelerate open a process group."""


def training_step(
    accelerator: Accelerator,
    backbone: Backbone,
    loss: Loss,
    feed: Feed,
    config: RunConfig,
    optimizer: Any,
    step: int,
) -> tuple[float, float]:
    """Do one optimizer step, of one or more forward passes.

    Args:
        accelerator: made by `make_accelerator`.
        backbone: with the wrapped module.
        loss: from a predicted velocity and a step to (B,).
        feed: where the batches come from.
        config: of the run.
        optimizer: as accelerate wrapped it.
        step: counted from 1.

    Returns:
        The loss, and the norm of the gradient before it was clipped; 0 where it is not clipped.

    Raises:
        D4KError: the loss is not finite.
    """
    accumulation, total, norm = config.training.accumulation, 0.0, 0.0
    for part in range(accumulation):
        number = (step - 1) * accumulation + part
        with accelerator.accumulate(backbone.trainable):
            value = _batch_loss(accelerator, backbone, loss, feed, config, number)
            if not torch.isfinite(value):
                raise D4KError(
                    f"the loss became {value.item()} at step {step}; lower optimizer.lr, or set training.precision to "
                    "'bf16' or 'no'. Checkpoints up to here are kept."
                )
            accelerator.backward(value)
            if accelerator.sync_gradients and config.training.clip:
                norm = float(accelerator.clip_grad_norm_(backbone.trainable.parameters(), config.training.clip))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        total += value.item()
    return total / accumulation, norm


def _batch_loss(
    accelerator: Accelerator, backbone: Backbone, loss: Loss, feed: Feed, config: RunConfig, number: int
) -> torch.Tensor:
    """The weighted loss of batch `number`, a scalar with its gradient."""
    batch = feed.batch(number)
    flow = FlowStep(batch.clean, batch.noise, batch.sigma)
    with accelerator.autocast(), _dropout(config, number, accelerator.device):
        velocity = backbone.velocity(flow.noisy, batch.sigma, batch.conditioning, config.flow.guidance)
    weight = sigma_weight(batch.sigma, config.flow.weighting)
    return (weight * loss(velocity, flow)).mean()


@contextmanager
def _dropout(config: RunConfig, number: int, device: torch.device) -> Iterator[None]:
    """An adapter's dropout, decided by the seed and the number of the batch."""
    if config.adapter is None or not config.adapter.dropout:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(numbered_seed(config.seed, "dropout", number))
        yield


def make_accelerator(config: RunConfig, device: torch.device) -> Accelerator:
    """What runs the steps on a device, set up by the run's own settings and by nothing else."""
    # a second run in one process may ask for another precision or device, which accelerate's shared state would refuse
    reset_accelerator()
    with _without_environment(), patch_environment(ACCELERATE_TORCH_DEVICE=str(device)):
        return Accelerator(
            gradient_accumulation_steps=config.training.accumulation,
            mixed_precision=config.training.precision,
            cpu=device.type == "cpu",
        )


@contextmanager
def _without_environment() -> Iterator[None]:
    """Hide what accelerate would read from the environment in place of the run's settings."""
    hidden = {name: value for name, value in os.environ.items() if name in LAUNCHER or name.startswith("ACCELERATE_")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
