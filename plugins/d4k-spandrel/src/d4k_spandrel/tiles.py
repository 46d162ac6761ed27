"""Tiles: where a network reads, and how what it gives is put together.

    one axis:   |------- core -------|------- core -------|-- core --|      every pixel is of one core
    read:       |-----------------------|                                   a core and `overlap` on either side of it
                               |-----------------------------|
    blended:                      ><                           a quarter of the overlap on either side of a border

What lies farther than that from its core is only read, so that what is used is at least three quarters of the overlap
away from where the network sees the picture end.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from attrs import frozen
from torch import Tensor

__all__ = ["ALIGNED", "Span", "context", "enlarge", "overlap_for", "spans"]

ALIGNED = 32
"""Tiles are read from a multiple of this many pixels to another, which the windows of attention (8, 16 or 32 pixels)
divide: so they lie where they lie in the whole picture."""


def context(overlap: int) -> int:
    """The pixels of an overlap that are only read.

    >>> context(32)
    24
    """
    return overlap - overlap // 4


def overlap_for(reach: int) -> int:
    """The least overlap whose `context` is as much as a network looks.

    >>> overlap_for(19), context(25)
    (25, 19)
    """
    return next(overlap for overlap in range(reach, 2 * reach + 1) if context(overlap) >= reach)


@frozen
class Span:
    """A tile along one axis, in pixels of the source.

    Args:
        start: the first pixel that is read.
        stop: behind the last one.
        begin: the first pixel of the core.
        end: behind the last one.
        size: of the picture.
        blend: pixels on either side of the border between two cores in which the one fades into the other.
    """

    start: int
    stop: int
    begin: int
    end: int
    size: int
    blend: int

    def weights(self, scale: int, device: torch.device) -> Tensor:
        """How much each pixel of the enlarged tile counts: ((stop - start) * scale,) in [0, 1].

        Those of all tiles at one pixel have the sum 1.
        """
        at = torch.arange(self.start * scale, self.stop * scale, device=device, dtype=torch.float64)
        at = (at + 0.5) / scale  # centres of pixels, measured in the source
        result = torch.ones_like(at)
        if self.begin > 0:
            result *= self._fading(at - self.begin)
        if self.end < self.size:
            result *= self._fading(self.end - at)
        return result.float()

    def enlarged(self, scale: int) -> slice:
        """What of the enlarged picture the tile covers."""
        return slice(self.start * scale, self.stop * scale)

    def _fading(self, inside: Tensor) -> Tensor:
        return (inside / (2 * self.blend) + 0.5).clamp(0, 1) if self.blend else (inside > 0).to(inside)


def spans(size: int, tile: int, overlap: int) -> list[Span]:
    """The tiles along an axis.

    Args:
        size: of the picture in pixels.
        tile: the most pixels of a core; cores are of equal size, but for a pixel.
        overlap: what is read around a core at the least, but for where the picture ends; at most `tile`.

    >>> [(span.start, span.begin, span.end, span.stop) for span in spans(100, 64, 16)]
    [(0, 0, 50, 96), (32, 50, 100, 100)]
    """
    count = -(-size // tile)
    borders = [round(number * size / count) for number in range(count + 1)]
    return [
        Span(
            start=max(0, (begin - overlap) // ALIGNED * ALIGNED),
            stop=min(size, -(-(end + overlap) // ALIGNED) * ALIGNED),
            begin=begin,
            end=end,
            size=size,
            blend=overlap // 4,
        )
        for begin, end in pairwise(borders)
    ]


def enlarge(
    network: Callable[[Tensor], Tensor], picture: Tensor, scale: int, tile: int, overlap: Callable[[], int]
) -> Tensor:
    """Enlarge a picture by a network, whole where it is no larger than a tile, and else in tiles.

    Args:
        network: from (1, 3, H, W) to (1, 3, H * scale, W * scale).
        picture: (1, 3, H, W).
        scale: of the network.
        tile: pixels a side.
        overlap: gives that of two tiles in pixels; only asked for where there are several.
    """
    height, width = picture.shape[-2:]
    if max(height, width) <= tile:
        return network(picture)
    pixels = overlap()
    result = picture.new_zeros(1, 3, height * scale, width * scale)
    across = {column: column.weights(scale, picture.device) for column in spans(width, tile, pixels)}
    for row in spans(height, tile, pixels):
        down = row.weights(scale, picture.device)[:, None]
        for column in across:
            part = network(picture[..., row.start : row.stop, column.start : column.stop])
            result[..., row.enlarged(scale), column.enlarged(scale)] += part * (down * across[column])
    return result
