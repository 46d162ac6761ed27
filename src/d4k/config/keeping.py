"""How many checkpoints of a run lie on the disk."""

from __future__ import annotations

import math

from d4k.config.run import TrainingSettings

__all__ = ["kept_at_once"]


def kept_at_once(settings: TrainingSettings) -> tuple[int, int]:
    """How many checkpoints lie on the disk together at most, and how many stay in the end.

    >>> kept_at_once(TrainingSettings(steps=1000, save_every=100, keep_last=2, keep_every=500))
    (4, 3)
    """
    every = settings.save_every or settings.steps
    written = -(-settings.steps // every)
    if not settings.keep_last:
        return written, written

    def kept(newest: int) -> int:
        """The newest ones, and of those before, at multiples of `every`, the ones that stay."""
        before = max(0, written - newest) * every
        return min(written, newest) + (before // math.lcm(every, settings.keep_every) if settings.keep_every else 0)

    return kept(settings.keep_last + 1), kept(settings.keep_last)
