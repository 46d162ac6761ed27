"""Resizing a picture until it covers a size, and cutting that size out of it."""

from __future__ import annotations

import random
from typing import Any, Literal

from attrs import field, frozen
from PIL import Image, ImageOps

__all__ = ["Crop", "Cut"]


@frozen
class Cut:
    """The part of a picture that a crop takes.

    Args:
        box: left, top, right and bottom in pixels of the picture, also between them.
        mirrored: whether left and right are exchanged afterwards.
    """

    box: tuple[float, float, float, float]
    mirrored: bool


@frozen
class Crop:
    """Resize a picture until it just covers a size, and cut that size out of it.

    The scale is `max(height / H, width / W)`, with Lanczos resampling; the cut is made on whole pixels of the result.

    Args:
        height: of the result in pixels.
        width: of the result in pixels.
        position: `center`, or `random` by the seed.
        flip: mirror every second picture, by the seed.

    >>> Crop(32, 64)(Image.new("RGB", (300, 200)), seed=0).size
    (64, 32)
    """

    height: int = field()
    width: int = field()
    position: Literal["center", "random"] = field(default="center")
    flip: bool = False

    @height.validator
    @width.validator
    def _check_side(self, attribute: Any, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{attribute.name} is {value!r}; it must be a whole number of pixels, at least 1")

    @position.validator
    def _check_position(self, attribute: Any, value: str) -> None:
        if value not in ("center", "random"):
            raise ValueError(f"{attribute.name} is {value!r}; allowed: center, random")

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        """Crop a picture; equal seeds give equal results.

        Args:
            image: any size.
            seed: 0 or more; decides the random position and the flip, independently.

        Returns:
            A picture of `width` by `height`, in the mode of `image`.
        """
        cut = self.cut((image.width, image.height), seed)
        result = image.resize((self.width, self.height), Image.Resampling.LANCZOS, box=cut.box)
        return ImageOps.mirror(result) if cut.mirrored else result

    def cut(self, size: tuple[int, int], seed: int) -> Cut:
        """What is cut out of a picture of a size, before it is resized.

        Args:
            size: width and height of the picture in pixels, upright.
            seed: as above.

        >>> Crop(64, 64).cut((256, 128), seed=0)
        Cut(box=(64.0, 0.0, 192.0, 128.0), mirrored=False)
        """
        rng = random.Random(seed)
        draws = rng.random(), rng.random()
        x, y = draws if self.position == "random" else (0.5, 0.5)
        scale = max(self.height / size[1], self.width / size[0])
        left, right = _span(size[0], self.width, scale, x)
        top, bottom = _span(size[1], self.height, scale, y)
        return Cut((left, top, right, bottom), self.flip and rng.random() < 0.5)


def _span(length: int, wanted: int, scale: float, where: float) -> tuple[float, float]:
    """Where a cut of `wanted` pixels after scaling starts and ends in a side of `length` pixels before it."""
    offset = int(where * (round(length * scale) - wanted + 1))
    start = max(0.0, min(offset / scale, length - wanted / scale))
    return start, min(start + wanted / scale, float(length))
