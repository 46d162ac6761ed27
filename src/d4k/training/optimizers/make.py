"""The optimizer of a run, from its settings."""

from __future__ import annotations

import torch

from d4k.config import OptimizerSettings
from d4k.training.optimizers.classes import find_class, keywords
from d4k.training.optimizers.muon import make_muon

__all__ = ["make_optimizer"]


def make_optimizer(
    settings: OptimizerSettings, module: torch.nn.Module, *, seed: int = 0, offload: bool = False
) -> torch.optim.Optimizer:
    """An optimizer of those parameters of a module that require a gradient.

    Args:
        settings: its name, learning rate, decays and further options.
        module: the denoiser, or a denoiser with an adapter.
        seed: of the run, which decides how `adamw-bf16` rounds.
        offload: keep its state in CPU memory and compute there; the weights must be on a GPU.

    Raises:
        ConfigError: the package of the optimizer is not installed, its class is none, or has no such option.
    """
    if settings.name == "muon":
        return make_muon(settings, module)
    found = find_class(settings.name, seed)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    # torch's fused kernel takes one pass over the weights; on a CPU its sums are in another order than they were so far
    fused = settings.name == "adamw" and all(parameter.is_cuda for parameter in trained)
    options = {"fused": True} if fused and "foreach" not in settings.options else {}
    options |= keywords(found, settings)
    if offload:
        from d4k.training.optimizers.offload import offloaded

        return offloaded(found, trained, options)
    optimizer: torch.optim.Optimizer = found(trained, **options)
    return optimizer
