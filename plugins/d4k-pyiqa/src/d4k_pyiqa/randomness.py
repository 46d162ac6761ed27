"""The same random numbers for every picture, whichever library draws them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from d4k.seeds import numbered_seed

__all__ = ["same_numbers"]


@contextmanager
def same_numbers(device: torch.device) -> Iterator[None]:
    """Let torch, numpy and Python draw the same numbers each time in here, and go on outside as if nothing was drawn.

    Args:
        device: whose generator is seeded beside that of the CPU.
    """
    seed = numbered_seed(0, "pyiqa", 0)
    python, table = random.getstate(), np.random.get_state()  # pyiqa draws from the old generator
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(table)
