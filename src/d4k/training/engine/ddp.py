"""Several processes, each with the whole model and pictures of its own, through accelerate and torch's DDP."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from d4k.training.engine.context import quiet_context, share_tokens
from d4k.training.engine.single import Engine
from d4k.upstream import join_tokens

__all__ = ["DDP_SETTINGS", "DDPEngine"]

DDP_SETTINGS = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
"""Buffers of a denoiser are constants, such as tables of positions; gradients need no second copy for the exchange."""


class DDPEngine(Engine):
    """Several processes whose gradients are averaged in the last forward pass of each step.

    Args:
        accelerator: of accelerate, set up by the run's own settings in a launch of several processes.
        context: processes that share the tokens of a picture.
    """

    strategy = "ddp"

    def __init__(self, accelerator: Accelerator, context: int = 1) -> None:
        super().__init__(accelerator)
        self.context = context

    def share(self, module: torch.nn.Module) -> None:
        """Leave to each process its part of the tokens, where several share a picture."""
        if self.context > 1:
            share_tokens(module, self.context, self.processes, self.device)

    def unwrap(self, wrapped: torch.nn.Module) -> torch.nn.Module:
        """The module as it was before `share` and `wrap`, with what it has learnt."""
        module = super().unwrap(wrapped)
        if self.context > 1:
            join_tokens(module)
        return module

    @contextmanager
    def forward_pass(self, wrapped: torch.nn.Module) -> Iterator[None]:
        """A context for one of the forward and backward passes of a step; gradients are shared in the last."""
        with quiet_context(), super().forward_pass(wrapped):
            yield

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of one pass, which counts as much as each of the others of its step."""
        # processes that share a picture have a part of its gradient each: their sum is wanted, and the mean is taken
        super().backward(loss * self.context)

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module as the steps call it; its parameters are those that the optimizer gets."""
        with warnings.catch_warnings():  # newer releases of torch have two names for what accelerate knows by one
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return super().wrap(module)
