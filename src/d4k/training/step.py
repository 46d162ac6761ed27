"""One optimizer step: forward passes, the weighted loss, the gradient; a step that is not finite is left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen

from d4k.config import RunConfig
from d4k.flow import sigma_weight
from d4k.processes import Processes
from d4k.protocols import Backbone, FlowStep, Loss
from d4k.seeds import numbered_seed
from d4k.training.data.samples import Batch
from d4k.training.engine import Engine
from d4k.training.memory import offloaded_activations

__all__ = ["StepResult", "training_step"]


@frozen
class StepResult:
    """What came of a step.

    Args:
        loss: mean over the pictures of all processes; not finite where one of them was not.
        norm: of the gradient before it was clipped.
        skipped: the weights are as they were, since the loss or the gradient was not finite.
        ids: of the pictures of a step that was skipped: those of the passes whose loss was not finite, or of all where
            only the gradient was not.
    """

    loss: float
    norm: float
    skipped: bool = False
    ids: tuple[str, ...] = ()


def training_step(
    engine: Engine,
    backbone: Backbone,
    loss: Loss,
    feed: Iterator[Batch],
    config: RunConfig,
    optimizer: Any,
) -> StepResult:
    """Do one optimizer step, of one or more forward passes.

    Args:
        engine: made by `make_engine`.
        backbone: with the wrapped module.
        loss: from a predicted velocity and a step to (B,).
        feed: the batches that come next, `Feed.batches`.
        config: of the run.
        optimizer: as the engine wrapped it.
    """
    accumulation, processes = config.training.accumulation, engine.processes
    with processes.together():  # a picture that cannot be used in one process ends all of them
        batches = [next(feed) for _ in range(accumulation)]
    values = []
    for batch in batches:
        with engine.forward_pass(backbone.trainable):
            value = _batch_loss(engine, backbone, loss, batch, config)
            engine.backward(value)
        values.append(value.detach())
    norm = engine.clip(backbone.trainable, config.training.clip)
    mean = processes.sums(torch.stack(values).sum()[None]).item() / (accumulation * processes.count)
    skipped = not (math.isfinite(mean) and math.isfinite(norm))
    scaler = getattr(optimizer, "scaler", None)
    # a gradient scaler must see a gradient that is not finite: it lowers its scale, and leaves out the step itself
    if not skipped or (scaler is not None and not math.isfinite(norm)):
        optimizer.step()
    elif scaler is not None:
        scaler.update()  # the scale was undone, which it does once from update to update
    optimizer.zero_grad(set_to_none=True)
    return StepResult(mean, float(norm), skipped, _suspects(processes, values, batches) if skipped else ())


def _suspects(processes: Processes, values: Sequence[torch.Tensor], batches: Sequence[Batch]) -> tuple[str, ...]:
    """The pictures of the passes whose loss is not finite, in any process; those of all passes where it is nowhere."""
    own = [(math.isfinite(value.item()), batch.ids) for value, batch in zip(values, batches, strict=True)]
    said = [one for share in processes.gather(own) for one in share]
    bad = [ids for finite, ids in said if not finite] or [ids for _, ids in said]
    return tuple(dict.fromkeys(name for ids in bad for name in ids))


def _batch_loss(engine: Engine, backbone: Backbone, loss: Loss, batch: Batch, config: RunConfig) -> torch.Tensor:
    """The weighted loss of a batch, a scalar with its gradient."""
    flow = FlowStep(batch.clean, batch.noise, batch.sigma)
    kept = offloaded_activations(backbone.trainable, config.training.activation_offload)
    with engine.autocast(), _dropout(config, batch.number, engine.device), kept:
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
