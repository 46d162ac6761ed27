"""From figures to a decision, with the reason in words."""

from __future__ import annotations

from collections.abc import Mapping

from d4k.protocols import Filter

__all__ = ["judge"]


def judge(chosen: Filter, figures: Mapping[str, float]) -> str | None:
    """Why a filter rejects a picture of these figures, or None where it may stay.

    Args:
        chosen: the filter.
        figures: what its `measure` gave, now or earlier.

    >>> from d4k.datasets.filters import SizeFilter
    >>> judge(SizeFilter(min_side=2048), {"short_side": 900, "aspect": 1.5})
    'short side 900, at least 2048'
    """
    for limit in chosen.limits:
        reason = limit.reason(figures[limit.figure])
        if reason is not None:
            return reason
    return None
