"""The same random numbers for every picture, whichever library draws them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["same_numbers"]

SEED = 4096
"""Of every picture's crops; any other would do as well."""


@contextmanager
def same_numbers(device: torch.device) -> Iterator[None]:
    """Let torch, numpy and Python draw the same numbers each time in here, and go on outside as if nothing was drawn.

    Args:
        device: whose generator is seeded beside that of the CPU.
    """
    python, table = random.getstate(), np.random.get_state()  # pyiqa draws from the old generator
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(SEED)
        random.seed(SEED)
        np.random.seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(table)
