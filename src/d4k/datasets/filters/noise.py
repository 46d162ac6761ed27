"""The noise of a picture, from its finest diagonal subband."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from attrs import field, frozen

from d4k.config import rules
from d4k.datasets.filters.detail import haar
from d4k.images import Picture
from d4k.protocols import Limit

__all__ = ["NoiseFilter"]

CLIPPED = (8, 247)
"""Mean greys of windows that are taken for clipped, and so without noise."""


@frozen
class NoiseFilter:
    """Rejects noisy pictures.

    Args:
        max_noise: standard deviation of the noise in grey levels of 0 to 255, at most.

    Source: the median estimator of Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994, in the
    quietest quarter of the windows, where there is least texture to be taken for noise.
    """

    max_noise: float = field(default=8.0, validator=rules.number(0))

    figures: ClassVar[Mapping[str, str]] = {"noise": "standard deviation of the noise, in grey levels"}

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The one option."""
        return (Limit("noise", "max_noise", most=self.max_noise),)

    def measure(self, picture: Picture) -> dict[str, float]:
        """See `figures`."""
        means = picture.windows.mean((1, 2))
        windows = picture.windows[(means > CLIPPED[0]) & (means < CLIPPED[1])]
        if not len(windows):
            return {"noise": 0.0}
        diagonal = np.abs(haar(windows)[3]).reshape(len(windows), -1)
        sigmas = np.median(diagonal, axis=1) / 0.6745  # the median of |x| where x is normal with sigma 1
        return {"noise": float(np.quantile(sigmas, 0.25))}
