"""One process on one device, through accelerate; what the other engines change of it."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from d4k.processes import Processes

__all__ = ["Engine"]


class Engine:
    """One process on one device.

    Args:
        accelerator: of accelerate, set up by the run's own settings.

    Attributes:
        processes: that share the run.
        strategy: how they share it.
        context: how many of them share a picture.
    """

    strategy, context = "single", 1

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.processes = accelerator, Processes()
        # to list the parameters of a module takes a millisecond, in every step
        self.trained: tuple[torch.nn.Module, list[torch.nn.Parameter]] | None = None

    @property
    def pictures(self) -> tuple[int, int]:
        """Which share of the pictures this process takes, from 0, and of how many shares."""
        return self.processes.rank // self.context, self.processes.count // self.context

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def scaler(self) -> Any:
        """The gradient scaler of a run in float16; None in another precision."""
        return self.accelerator.scaler

    def share(self, module: torch.nn.Module) -> None:
        """Leave to each process its share of the weights, before the optimizer is made of them."""

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module as the steps call it; its parameters are those that the optimizer gets."""
        wrapped: torch.nn.Module = self.accelerator.prepare(module)
        return wrapped

    def unwrap(self, wrapped: torch.nn.Module) -> torch.nn.Module:
        """The module as it was before `wrap`, with what it has learnt."""
        # accelerate patches the module's own forward with autocast, which must not outlive the run
        module: torch.nn.Module = self.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        return module

    def gather(self, module: torch.nn.Module) -> None:
        """Undo `share`: the first process has the whole module again. Every process must ask."""

    def break_off(self, module: torch.nn.Module) -> None:
        """Undo `share` where that asks no other process, which may have stopped, so that the session can go on."""

    def wrap_optimizer(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimizer as the steps call it: with a gradient scaler where the run computes in float16."""
        # accelerate's wrapper looks for a package on the disk in each step, which costs more than all else around it
        return optimizer if self.scaler is None else self.accelerator.prepare(optimizer)

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
        if self.trained is None or self.trained[0] is not wrapped:
            self.trained = wrapped, [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
        parameters = [parameter for parameter in self.trained[1] if parameter.grad is not None]
        if self.scaler is not None:
            self.accelerator.unscale_gradients()
        if largest:
            return torch.nn.utils.clip_grad_norm_(parameters, largest)
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
