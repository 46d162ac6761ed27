"""Muon for the matrices inside a denoiser's blocks, and AdamW for everything else, as one optimizer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from d4k.config import OptimizerSettings
from d4k.training.optimizers.classes import refuse_options

__all__ = ["MuonWithAdamW", "make_muon"]

KINDS = ("muon", "adamw")


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW behind one interface: one state, one list of groups, one schedule.

    Args:
        matrices: parameters (rows, columns) that Muon trains.
        others: parameters that AdamW trains.
        muon: options of `torch.optim.Muon`.
        adamw: options of `torch.optim.AdamW`.

    Source: Jordan et al. 2024, Muon; the step of a matrix is scaled to that of AdamW as in Liu et al. 2025, arXiv
    2502.16982, so that one learning rate suits both.
    """

    def __init__(
        self,
        matrices: list[torch.nn.Parameter],
        others: list[torch.nn.Parameter],
        muon: dict[str, Any],
        adamw: dict[str, Any],
    ) -> None:
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            self.parts["muon"] = torch.optim.Muon(matrices, **muon)
        if others:
            self.parts["adamw"] = torch.optim.AdamW(others, **adamw)
        groups = [{**group, "kind": kind} for kind, part in self.parts.items() for group in part.param_groups]
        super().__init__(groups, {})

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Do a step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for kind, part in self.parts.items():
            # loading a checkpoint replaces groups and state, and a schedule changes the groups
            part.param_groups = [group for group in self.param_groups if group["kind"] == kind]
            part.state = self.state
            part.step()
        return loss


def make_muon(settings: OptimizerSettings, module: torch.nn.Module) -> MuonWithAdamW:
    """Muon for the matrices of the blocks of a denoiser, AdamW for embeddings, norms, biases and what is at its ends.

    Args:
        settings: of the run; options are those of `torch.optim.Muon`.
        module: the denoiser, or a denoiser with an adapter.

    Raises:
        ConfigError: Muon has no such option.
    """
    refuse_options(settings, [name for name in inspect.signature(torch.optim.Muon).parameters if name != "params"])
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    matrices = [parameter for name, parameter in trained.items() if _inside(name, parameter)]
    others = [parameter for name, parameter in trained.items() if not _inside(name, parameter)]
    shared = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    muon = {**shared, "adjust_lr_fn": "match_rms_adamw", **settings.options}
    adamw = {**shared, "betas": (settings.beta1, settings.beta2), "eps": settings.eps}
    return MuonWithAdamW(matrices, others, muon, adamw)


def _inside(name: str, parameter: torch.Tensor) -> bool:
    """Whether a parameter is a matrix of one of a row of blocks, which have numbers in their names."""
    return parameter.ndim == 2 and any(part.isdigit() for part in name.split("."))
