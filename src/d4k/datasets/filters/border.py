"""Frames, letterboxes, and areas of one colour such as those of captions and marks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from attrs import field, frozen

from d4k.config import rules
from d4k.images import Picture
from d4k.protocols import Limit

__all__ = ["BorderFilter", "margin"]

EVEN = 1.5
"""Grey levels of standard deviation up to which a row counts as even."""

STEP = 4.0
"""Grey levels by which the picture differs from its frame where it begins; a sky that fades differs by less."""

DARK, LIGHT = 4, 251
"""Greys beyond which a colour is taken for clipped shadow or highlight, which is no mark."""


@frozen
class BorderFilter:
    """Rejects pictures with an even frame, and with much of exactly one colour.

    Args:
        max_border: share of the area that is frame, in [0, 1], at most.
        max_one_colour: share of the area that has the commonest colour, in [0, 1], at most; black and white excepted.
    """

    max_border: float = field(default=0.005, validator=rules.number(0, 1))
    max_one_colour: float = field(default=0.15, validator=rules.number(0, 1))

    figures: ClassVar[Mapping[str, str]] = {
        "border": "share of the area that is an even frame",
        "one_colour": "share of the area that has exactly the commonest colour, black and white excepted",
    }

    @property
    def limits(self) -> tuple[Limit, ...]:
        """One for each option."""
        return (
            Limit("border", "max_border", most=self.max_border),
            Limit("one_colour", "max_one_colour", most=self.max_one_colour),
        )

    def measure(self, picture: Picture) -> dict[str, float]:
        """See `figures`; the commonest colour is that of every fourth pixel of every fourth row."""
        luma = picture.luma
        rows, columns = (luma[:, :: max(1, luma.shape[1] // 512)], luma[:: max(1, luma.shape[0] // 512)].T)
        inside = [len(lines) - margin(lines) - margin(lines[::-1]) for lines in (rows, columns)]
        return {
            "border": 1 - max(0, inside[0]) * max(0, inside[1]) / luma.size,
            "one_colour": _commonest(picture.pixels[::4, ::4]),
        }


def margin(lines: np.ndarray) -> int:
    """How many of the first lines of (L, N) are a frame: even, all of one grey, and set off from what follows."""
    lines = lines.astype(np.float32)
    means = lines.mean(1)
    framed = (lines.std(1) < EVEN) & (np.abs(means - means[0]) < EVEN)
    count = int(np.argmin(framed)) if not framed.all() else 0
    if count and np.abs(lines[count] - means[0]).mean() >= STEP:
        return count
    return 0


def _commonest(pixels: np.ndarray) -> float:
    flat = pixels.reshape(-1, 3).astype(np.uint32)
    inner = (flat.max(1) > DARK) & (flat.min(1) < LIGHT)
    colours = (flat[inner] << np.array([16, 8, 0], np.uint32)).sum(1)
    if not len(colours):
        return 0.0
    _, counts = np.unique(colours, return_counts=True)
    return float(counts.max() / len(flat))
