"""Optimizers by name."""

from __future__ import annotations

from typing import Any

import torch

from d4k.config import OptimizerSettings
from d4k.errors import ConfigError

__all__ = ["make_optimizer"]


def make_optimizer(settings: OptimizerSettings, module: torch.nn.Module) -> torch.optim.Optimizer:
    """An optimizer of those parameters of a module that require a gradient.

    Args:
        settings: its name, learning rate and decays.
        module: the denoiser, or a denoiser with an adapter.

    Raises:
        ConfigError: the package of the optimizer is not installed.
    """
    optimizer_class: Any = torch.optim.AdamW
    if settings.name == "adamw-8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise ConfigError(
                "optimizer.name = 'adamw-8bit' needs bitsandbytes: pip install bitsandbytes, or choose 'adamw'"
            ) from error
        optimizer_class = AdamW8bit
    optimizer: torch.optim.Optimizer = optimizer_class(
        [p for p in module.parameters() if p.requires_grad],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    return optimizer
