"""What JPEG compression has left of a picture: by the tables of its file, and by the blocks in its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from attrs import field, frozen
from PIL import Image, JpegImagePlugin

from d4k.config import rules
from d4k.images import Picture
from d4k.protocols import Limit

__all__ = ["JpegFilter", "blocking_of", "quality_of"]

STANDARD = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""The luminance table of quality 50: ITU-T T.81, annex K, table K.1."""


@frozen
class JpegFilter:
    """Rejects pictures that were compressed hard, whatever format they are in now.

    Args:
        min_quality: of a JPEG file, on the scale of libjpeg from 1 to 100, at least; other files have none.
        max_blocking: step at the edges of the 8x8 blocks divided by that between other neighbours, at most.
    """

    min_quality: float = field(default=75.0, validator=rules.number(0, 100))
    max_blocking: float = field(default=1.45, validator=rules.number(1))

    figures: ClassVar[Mapping[str, str]] = {
        "quality": "quality of the JPEG file, from 1 to 100 on libjpeg's scale, by its luminance table",
        "blocking": "step across the edges of 8x8 blocks plus one grey level, divided by that between other neighbours",
    }

    @property
    def limits(self) -> tuple[Limit, ...]:
        """One for each option."""
        return (
            Limit("quality", "min_quality", least=self.min_quality),
            Limit("blocking", "max_blocking", most=self.max_blocking),
        )

    def measure(self, picture: Picture) -> dict[str, float]:
        """See `figures`."""
        quality = float("nan")
        if picture.file is not None:
            with Image.open(picture.file) as image:
                if isinstance(image, JpegImagePlugin.JpegImageFile):
                    quality = quality_of(image.quantization[0])
        return {"quality": quality, "blocking": blocking_of(picture.windows)}


def quality_of(table: list[int]) -> int:
    """The quality at which libjpeg makes this luminance table of the standard one, or the table nearest to it."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None]
    made = ((np.ravel(STANDARD) * scale + 50) // 100).clip(1, 255)
    return int(quality[np.abs(made - np.asarray(table)).sum(1).argmin()])


def blocking_of(windows: np.ndarray) -> float:
    """See `JpegFilter.figures`, of windows (N, S, S): the larger of both directions.

    Blocks may begin anywhere, since pictures are cropped after they were compressed: of the eight places the one with
    the largest steps counts. A grey level is added above and below, so that smooth pictures are not judged by rounding.
    """
    found = []
    for axis in (1, 2):
        steps = np.abs(np.diff(windows, axis=axis)).mean((0, 3 - axis))
        if len(steps) < 16:
            continue
        places = np.array([steps[start::8].mean() for start in range(8)])
        others = np.delete(places, places.argmax()).mean()
        found.append((places.max() + 1) / (others + 1))
    return float(max(found, default=1.0))
