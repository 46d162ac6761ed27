"""Buckets: the sizes that pictures are cut to, and which of them suits a picture.

All pictures of a batch have one size. With one size alone, a panorama loses most of its width and a portrait its feet;
with a bucket for each common shape, a picture is cut to the one nearest its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from d4k.config import DataSettings
from d4k.errors import ConfigError
from d4k.protocols import Backbone, LatentSpec
from d4k.sampling import check_size

__all__ = ["FURTHEST", "SHAPES", "Reason", "Size", "auto_sizes", "bucket_of", "bucket_sizes"]

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

Reason: TypeAlias = Literal["small", "shape"]
"""Why no bucket suits a picture: it would be enlarged, or more than half of it would be cut off."""

SHAPES = ((1, 1), (5, 4), (4, 3), (7, 5), (3, 2), (16, 9), (2, 1))
"""Long to short side of the shapes that `auto` makes buckets of, lying and standing: those of cameras and screens."""

FURTHEST = 2.0
"""How many times longer a picture may be than a bucket of the same height: cutting it there leaves half of it."""

FEWER_TOKENS = 0.01
"""Share of the tokens of width x height that a bucket of `auto` may lack."""

OFF_SHAPE = math.log(1.06)
"""How far a bucket of `auto` may be from the shape that it is made for: 6 %, less than from one shape to the next."""


def bucket_sizes(backbone: Backbone, data: DataSettings) -> tuple[Size, ...]:
    """The sizes that the pictures of a run are cut to.

    Args:
        backbone: loaded.
        data: `width`, `height` and `buckets` of a run.

    Returns:
        Width and height of each bucket in pixels, without repetition: with `off` the one size of the run, with `auto`
        that and others of as many tokens, or else those that are named.

    Raises:
        ConfigError: a size does not suit the backbone, or is given beside buckets that are named.
    """
    width, height = data.width or backbone.defaults.size, data.height or backbone.defaults.size
    if not isinstance(data.buckets, str):
        if data.width is not None or data.height is not None:
            raise ConfigError(
                "data.width and data.height have no effect beside buckets that are named "
                f"({', '.join(data.buckets)}): leave them out, or set data.buckets = 'auto'"
            )
        named = [_parsed(name) for name in dict.fromkeys(data.buckets)]
        for size in named:
            check_size(backbone, *size)
        return tuple(named)
    check_size(backbone, width, height)
    return ((width, height),) if data.buckets == "off" else auto_sizes(backbone.latent, width, height)


def auto_sizes(latent: LatentSpec, width: int, height: int) -> tuple[Size, ...]:
    """Sizes of the common shapes with as many tokens as `width` x `height`, or up to 1 % fewer.

    Args:
        latent: of the backbone; sides are multiples of its granularity, and none is longer than its `max_size`.
        width: in pixels, a multiple of the granularity.
        height: likewise.

    Returns:
        `width` x `height` first, then the others from wide to tall.

    >>> auto_sizes(LatentSpec(channels=16, downscale=16, patch=2), 4096, 4096)[:3]
    ((4096, 4096), (5792, 2880), (5440, 3072))
    """
    unit, tokens = latent.granularity, latent.tokens(height, width)
    columns = range(1, tokens + 1)
    possible = [(c * unit, tokens // c * unit) for c in columns if c * (tokens // c) >= tokens * (1 - FEWER_TOKENS)]
    longest = math.inf if latent.max_size is None else latent.max_size
    found = {(width, height)}
    for long, short in SHAPES:
        shape = math.log(long / short)
        near = [size for size in possible if max(size) <= longest and abs(_shape(size) - shape) <= OFF_SHAPE]
        if near:
            lying = min(near, key=lambda size: abs(_shape(size) - shape))
            found |= {lying, (lying[1], lying[0])}
    others = sorted(found - {(width, height)}, key=_shape, reverse=True)
    return ((width, height), *others)


def bucket_of(picture: Size, sizes: Sequence[Size], *, enlarge: bool, any_shape: bool = False) -> int | Reason:
    """The bucket that suits a picture, or why none does.

    Args:
        picture: its size, upright.
        sizes: of the buckets.
        enlarge: a picture may be enlarged, where it fills no bucket near its shape.
        any_shape: no shape is too far from that of a bucket.

    Returns:
        The number of the bucket nearest in shape, by the logarithm of width / height, among those that the picture
        fills; of equally near ones the largest.
    """
    furthest = math.inf if any_shape else math.log(FURTHEST) + 1e-9
    near = [number for number, size in enumerate(sizes) if _distance(picture, size) <= furthest]
    filled = [number for number in near if picture[0] >= sizes[number][0] and picture[1] >= sizes[number][1]]
    if not near:
        return "shape"
    if not filled and not enlarge:
        return "small"
    return _nearest(picture, sizes, filled or near)


def nearest_size(picture: Size, sizes: Sequence[Size]) -> Size:
    """The bucket nearest in shape to a picture, whether it fills it or not."""
    return sizes[_nearest(picture, sizes, range(len(sizes)))]


def _nearest(picture: Size, sizes: Sequence[Size], among: Iterable[int]) -> int:
    return min(among, key=lambda number: (_distance(picture, sizes[number]), -math.prod(sizes[number]), number))


def _distance(picture: Size, size: Size) -> float:
    # rounded, so that sizes of one shape are equally near
    return round(abs(_shape(picture) - _shape(size)), 9)


def _shape(size: Size) -> float:
    return math.log(size[0] / size[1])


def _parsed(name: str) -> Size:
    width, height = name.split("x")
    return int(width), int(height)
