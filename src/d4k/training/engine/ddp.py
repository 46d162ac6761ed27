"""Several processes, each with the whole model and pictures of its own, through accelerate and torch's DDP."""

from __future__ import annotations

import warnings

import torch
from accelerate import DistributedDataParallelKwargs

from d4k.training.engine.single import Engine

__all__ = ["DDP_SETTINGS", "DDPEngine"]

DDP_SETTINGS = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
"""Buffers of a denoiser are constants, such as tables of positions; gradients need no second copy for the exchange."""


class DDPEngine(Engine):
    """Several processes whose gradients are averaged in the last forward pass of each step."""

    strategy = "ddp"

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module as the steps call it; its parameters are those that the optimizer gets."""
        with warnings.catch_warnings():  # newer releases of torch have two names for what accelerate knows by one
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return super().wrap(module)
