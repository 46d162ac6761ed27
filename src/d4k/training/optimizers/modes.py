"""Optimizers that train other weights than those that are to be used, as schedule-free ones do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["evaluation_weights", "training_mode"]


@contextmanager
def training_mode(optimizer: Any) -> Iterator[None]:
    """The steps of a run: an optimizer that has modes trains within, and leaves the weights that are to be used.

    Args:
        optimizer: any; one without modes does nothing.
    """
    _switch(optimizer, "train")
    try:
        yield
    finally:
        _switch(optimizer, "eval")


@contextmanager
def evaluation_weights(optimizer: Any) -> Iterator[None]:
    """A block in which the module has the weights that are to be used, for validation; training then goes on exactly.

    Switching there and back would round, so that a run with validation would end with other weights: what was trained
    is copied to CPU memory meanwhile.

    Args:
        optimizer: any; one without modes does nothing.
    """
    if not _has_modes(optimizer) or not any(group.get("train_mode") for group in optimizer.param_groups):
        yield
        return
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = [parameter.detach().to("cpu", copy=True) for parameter in trained]
    _switch(optimizer, "eval")
    try:
        yield
    finally:
        _switch(optimizer, "train")
        with torch.no_grad():
            for parameter, value in zip(trained, kept, strict=True):
                parameter.copy_(value)


def _has_modes(optimizer: Any) -> bool:
    return all(callable(getattr(optimizer, mode, None)) for mode in ("train", "eval"))


def _switch(optimizer: Any, mode: str) -> None:
    if _has_modes(optimizer):
        getattr(optimizer, mode)()
