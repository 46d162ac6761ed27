"""How the denoiser of a run is wrapped, differentiated, and saved: the one place that knows of accelerate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator

from d4k.config import RunConfig
from d4k.protocols import Backbone
from d4k.training.processes import Processes
from d4k.upstream import patch_environment, reset_accelerator

__all__ = ["Engine", "make_engine"]

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "FORK_LAUNCHED")
"""What a launcher sets in the environment of its one process; it would make accelerate open a process group."""


class Engine:
    """One process on one device.

    Args:
        accelerator: of accelerate, set up by the run's own settings.

    Attributes:
        processes: that share the run.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.processes = accelerator, Processes()

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module as the steps call it; its parameters are those that the optimizer gets."""
        wrapped: torch.nn.Module = self.accelerator.prepare(module)
        return wrapped

    def unwrap(self, wrapped: torch.nn.Module) -> torch.nn.Module:
        """The module as it was before `wrap`, with what it has learnt."""
        # accelerate patches the module's own forward with autocast, which must not outlive the run
        module: torch.nn.Module = self.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        return module

    def wrap_optimizer(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimizer as the steps call it: with a gradient scaler where the run computes in float16."""
        return self.accelerator.prepare(optimizer)

    def forward_pass(self, wrapped: torch.nn.Module) -> Any:
        """A context for one of the forward and backward passes of a step; gradients are shared in the last."""
        return self.accelerator.accumulate(wrapped)

    def autocast(self) -> Any:
        """A context that computes in the precision of the run."""
        return self.accelerator.autocast()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of one pass, which counts as much as each of the others of its step."""
        self.accelerator.backward(loss)

    def clip(self, wrapped: torch.nn.Module, largest: float) -> torch.Tensor:
        """Scale the gradient down to a largest norm, 0 leaving it alone, and return the norm that it had, a scalar."""
        parameters = [parameter for parameter in wrapped.parameters() if parameter.grad is not None]
        if largest:
            norm: torch.Tensor = self.accelerator.clip_grad_norm_(parameters, largest)
            return norm
        self.accelerator.unscale_gradients()
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def make_engine(backbone: Backbone, config: RunConfig) -> Engine:
    """What runs the steps of a run, set up by its own settings and by nothing else."""
    device = next(backbone.trainable.parameters()).device
    # a second run in one process may ask for another precision or device, which accelerate's shared state would refuse
    reset_accelerator()
    with _without_environment(), patch_environment(ACCELERATE_TORCH_DEVICE=str(device)):
        accelerator = Accelerator(
            gradient_accumulation_steps=config.training.accumulation,
            mixed_precision=config.training.precision,
            cpu=device.type == "cpu",
        )
    return Engine(accelerator)


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
