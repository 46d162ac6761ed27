"""How blurred the sharpest parts of a picture are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from attrs import field, frozen
from scipy.ndimage import uniform_filter1d

from d4k.config import rules
from d4k.images import Picture
from d4k.protocols import Limit

__all__ = ["BlurFilter", "blur_of"]

LENGTH = 11
"""Pixels that are averaged to blur once more."""

CONTENT = 0.5
"""Mean difference of neighbours, in grey levels, below which a window is too flat to be judged."""


@frozen
class BlurFilter:
    """Rejects pictures that are sharp nowhere; a background out of focus is no fault.

    Args:
        max_blur: in [0, 1], at most.

    Source: Crété et al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric",
    SPIE 6492, 2007.
    """

    max_blur: float = field(default=0.55, validator=rules.number(0, 1))

    figures: ClassVar[Mapping[str, str]] = {
        "blur": "blur effect of the sharpest tenth of the windows, from 0 for sharp to 1"
    }

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The one option."""
        return (Limit("blur", "max_blur", most=self.max_blur),)

    def measure(self, picture: Picture) -> dict[str, float]:
        """See `figures`; a picture that is flat everywhere has none (NaN)."""
        values = blur_of(picture.windows)
        values = values[~np.isnan(values)]
        return {"blur": float(np.quantile(values, 0.1)) if len(values) else float("nan")}


def blur_of(windows: np.ndarray) -> np.ndarray:
    """(N,): the blur effect of windows (N, S, S), the larger of both directions; NaN where there is no content."""
    found = []
    for axis in (1, 2):
        softer = uniform_filter1d(windows, LENGTH, axis=axis, mode="reflect")
        change = np.abs(np.diff(windows, axis=axis))
        lost = np.maximum(0, change - np.abs(np.diff(softer, axis=axis)))
        total = change.sum((1, 2))
        flat = change.mean((1, 2)) < CONTENT
        found.append(np.where(flat, np.nan, (total - lost.sum((1, 2))) / np.maximum(total, 1e-9)))
    return np.asarray(np.fmax(*found))
