"""What of the contract concerns the scheduler."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from d4k.testing.attempt import attempt
from d4k.testing.trial import Trial

__all__ = ["check_scheduler"]

STEPS = 5


def check_scheduler(trial: Trial) -> None:
    """Check a scheduler: its steps, that noise levels fall, and that a shift moves them."""
    scheduler = _made(trial)
    timesteps = scheduler.timesteps.cpu()
    second_order = len(timesteps) == 2 * STEPS - 1  # such as Heun's, which asks twice at each level but the ends
    assert second_order or len(timesteps) == STEPS, (
        f"the scheduler has the steps that were asked for, {STEPS}, got {len(timesteps)}"
    )
    falls = (a >= b if second_order else a > b for a, b in pairwise(timesteps))
    assert all(falls), "timesteps fall"
    sigmas = scheduler.sigmas.cpu()
    assert len(sigmas) == STEPS + 1, (
        f"the scheduler has a noise level before each step and one after, got {len(sigmas)}"
    )
    drift = (sigmas[:-1] * 1000 - timesteps).abs().max()
    assert drift <= 1, "the scheduler's sigmas are noise levels of flow matching: its timesteps / 1000"
    assert 0.9 < sigmas[0] <= 1, f"sampling begins at noise, sigma about 1, got {float(sigmas[0]):.3f}"
    assert sigmas[-1] < 0.1, f"sampling ends at the picture, sigma about 0, got {float(sigmas[-1]):.3f}"
    assert scheduler is not _made(trial), "each call makes a scheduler: solvers keep a history"
    assert torch.equal(_made(trial).sigmas.cpu(), sigmas), "each call makes a scheduler with the same noise levels"
    low, high = (_made(trial, shift).sigmas.cpu() for shift in (1.0, 9.0))
    assert not torch.equal(low, high), "shift moves the noise levels; it is ignored"
    assert (high[1:-1] > low[1:-1]).all(), "a larger shift moves the noise levels towards 1"
    middle = low[STEPS // 2]
    moved, expected = float(high[STEPS // 2]), float(9 * middle / (1 + 8 * middle))
    assert abs(moved - expected) < 0.05, (
        f"a shift of s moves sigma to s * sigma / (1 + (s - 1) * sigma): {expected:.3f} for 9, got {moved:.3f}"
    )


def _made(trial: Trial, shift: float | None = None) -> Any:
    height, width = trial.size
    shown = f"scheduler({STEPS}, {height}, {width}, {shift})"
    return attempt(shown, lambda: trial.backbone.scheduler(STEPS, height, width, shift))
