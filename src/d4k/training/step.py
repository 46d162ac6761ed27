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

__all__ = []


@contextmanager
def _dropout(config: RunConfig, number: int, device: torch.device) -> Iterator[None]:
    """Draw an adapter's dropout from the seed and the number of the batch."""
    if config.adapter is None or not config.adapter.dropout:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(numbered_seed(config.seed, "dropout", number))
        yield


def training_step(
    accelerator: Accelerator,
    backbone: Backbone,
    loss: Loss,
    feed: Feed,
    config: RunConfig,
    optimizer: Any,
    step: int,
) -> tuple[float, float]:
    accumulation, total, norm = config.training.accumulation, 0.0, 0.0
    for part in range(accumulation):
        number = ((step - 1) * accumulation + part) * accelerator.num_processes + accelerator.process_index
        batch = feed.batch(number)
        with accelerator.accumulate(backbone.trainable):
            flow = FlowStep(batch.clean, batch.noise, batch.sigma)
            with accelerator.autocast(), _dropout(config, number, accelerator.device):
                velocity = backbone.velocity(flow.noisy, batch.sigma, batch.conditioning, config.flow.guidance)
            weight = sigma_weight(batch.sigma, config.flow.weighting)
            value = (weight * loss(velocity, flow)).mean()
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
        total += accelerator.reduce(value.detach(), "mean").item()
    return total / accumulation, norm


def make_accelerator(config: RunConfig, device: torch.device) -> Accelerator:
    # a second run in one process may ask for another precision or device, which accelerate's shared state would refuse
    reset_accelerator()
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with patch_environment(**({} if launched else {"ACCELERATE_TORCH_DEVICE": str(device)})):
        return Accelerator(
            gradient_accumulation_steps=config.training.accumulation,
            mixed_precision=config.training.precision,
            cpu=device.type == "cpu",
            log_with="tensorboard",
            project_dir=config.output_dir,
        )
