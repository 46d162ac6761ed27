"""One decoded picture with what filters share: its luma, and windows of it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from attrs import frozen
from PIL import Image

__all__ = ["Picture"]


@frozen(eq=False, slots=False)
class Picture:
    """One decoded picture, as a filter sees it.

    Args:
        pixels: (H, W, 3) uint8 RGB, upright, at full resolution; not to be changed.
        file: what it was read from, for filters that look at the file itself; None where there is none.
    """

    pixels: np.ndarray
    file: Path | None = None

    @cached_property
    def luma(self) -> np.ndarray:
        """(H, W) uint8: the grey of ITU-R BT.601, computed once for all filters."""
        return np.asarray(Image.fromarray(self.pixels).convert("L"))

    @cached_property
    def windows(self) -> np.ndarray:
        """(N, S, S) float32: parts of the luma, spread evenly, computed once for all filters.

        At most 8 x 8 of them, S pixels a side: 256, or what the shorter side of the picture has. Each begins at a
        multiple of 8, where the blocks of a JPEG do. They are a quarter of a picture of 4096x4096.
        """
        luma = self.luma
        side = min(256, *luma.shape)
        places = []
        for length in luma.shape:
            count = min(8, max(1, length // side))
            starts = np.linspace(0, length - side, count) if count > 1 else np.array([(length - side) // 2])
            places.append((starts // 8 * 8).astype(int))
        parts = [luma[y : y + side, x : x + side] for y in places[0] for x in places[1]]
        return np.stack(parts).astype(np.float32)
