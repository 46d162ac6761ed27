"""How much there is to learn from a picture: flat areas, entropy, and the energy of the finest subbands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from attrs import field, frozen

from d4k.config import rules
from d4k.images import Picture
from d4k.protocols import Limit

__all__ = ["DetailFilter", "haar"]

BLOCK = 16
FLAT = 1.5
"""Grey levels of standard deviation up to which a block counts as flat."""


@frozen
class DetailFilter:
    """Rejects pictures that are mostly flat, have few greys, or no fine detail.

    Args:
        max_flat: share of blocks of 16x16 pixels that are flat, at most.
        min_entropy: of the greys in bits, in [0, 8], at least.
        min_detail: energy of the three finest subbands as a standard deviation in grey levels, at least.
    """

    max_flat: float = field(default=0.95, validator=rules.number(0, 1))
    min_entropy: float = field(default=4.0, validator=rules.number(0, 8))
    min_detail: float = field(default=0.8, validator=rules.number(0))

    figures: ClassVar[Mapping[str, str]] = {
        "flat": "share of blocks of 16x16 pixels whose greys have a standard deviation below 1.5",
        "entropy": "Shannon entropy of the histogram of 256 greys, in bits",
        "detail": "root mean square of the LH, HL and HH subbands of one orthonormal Haar level, in grey levels",
    }

    @property
    def limits(self) -> tuple[Limit, ...]:
        """One for each option."""
        return (
            Limit("flat", "max_flat", most=self.max_flat),
            Limit("entropy", "min_entropy", least=self.min_entropy),
            Limit("detail", "min_detail", least=self.min_detail),
        )

    def measure(self, picture: Picture) -> dict[str, float]:
        """See `figures`; entropy is that of all pixels, the others are measured in the picture's windows."""
        counts = np.bincount(picture.luma.reshape(-1), minlength=256)
        shares = counts[counts > 0] / picture.luma.size
        windows = picture.windows
        fine = haar(windows)[1:]
        return {
            "flat": float((_deviations(windows) < FLAT).mean()),
            "entropy": float(-(shares * np.log2(shares)).sum()),
            "detail": float(np.sqrt(np.mean([np.square(subband).mean() for subband in fine]))),
        }


def haar(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One orthonormal Haar level of (N, S, S): LL, LH, HL and HH, each (N, S/2, S/2); an odd row or column is left."""
    even = windows[:, : windows.shape[1] // 2 * 2, : windows.shape[2] // 2 * 2]
    a, b, c, d = even[:, ::2, ::2], even[:, ::2, 1::2], even[:, 1::2, ::2], even[:, 1::2, 1::2]
    return (a + b + c + d) / 2, (a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2


def _deviations(windows: np.ndarray) -> np.ndarray:
    """Standard deviation of each whole block of a window."""
    count, side = len(windows), min(BLOCK, windows.shape[1])
    blocks = windows.shape[1] // side
    cut = windows[:, : blocks * side, : blocks * side].reshape(count, blocks, side, blocks, side)
    return np.asarray(np.sqrt(np.maximum(np.square(cut).mean((2, 4)) - np.square(cut.mean((2, 4))), 0)))
