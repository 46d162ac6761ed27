"""Pictures to begin with, as Python hands them over: one for all prompts, or one for each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from d4k.errors import ConfigError
from d4k.images import open_picture, to_picture
from d4k.sampling.sources import digest, size_like, stages_like, warn_of_cut
from d4k.sampling.stages import Size

__all__ = ["Beginning", "Given", "read_beginnings", "sized_like"]

Given: TypeAlias = "Image.Image | Tensor | str | Path"
"""A picture, a uint8 tensor (3, H, W), or the path of a picture."""


@frozen(eq=False)
class Beginning:
    """A picture to begin with.

    Args:
        picture: RGB.
        record: what a recipe keeps of it: the path and SHA-256 of its file; or, where it has none, the SHA-256 of its
            size and its RGB bytes.
    """

    picture: Image.Image
    record: Mapping[str, str]


def read_beginnings(image: Given | Sequence[Given] | None, count: int) -> list[Beginning] | None:
    """Read the pictures that are begun with, one for each of `count` prompts; None where noise is begun with.

    Args:
        image: one for all prompts, or one for each.
        count: of the prompts.

    Raises:
        ConfigError: there are more or fewer, or one is of another type.
        DataError: one cannot be read.
    """
    if image is None:
        return None
    if isinstance(image, Image.Image | Tensor | str | Path) or not isinstance(image, Sequence):
        return [_read(image)] * count
    if len(image) != count:
        raise ConfigError(f"{len(image)} images, but {count} prompts: give one image, or one for each prompt")
    return [_read(one) for one in image]


def _read(image: Any) -> Beginning:
    if isinstance(image, str | Path):
        path = Path(image)
        return Beginning(open_picture(path), {"image": str(path), "image_sha256": digest(path)})
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3:
        image = to_picture(image)
    if not isinstance(image, Image.Image) or image.mode != "RGB":
        got = type(image).__name__
        if isinstance(image, Tensor):
            got = f"a tensor of {image.dtype} {tuple(image.shape)}"
        elif isinstance(image, Image.Image):
            got = f"a picture of mode {image.mode}"
        raise ConfigError(f"image must be a path, an RGB picture, or a uint8 tensor (3, H, W); got {got}")
    said = f"{image.width}x{image.height} RGB ".encode() + image.tobytes()
    return Beginning(image, {"image_sha256": hashlib.sha256(said).hexdigest()})


def sized_like(given: Mapping[str, Any], size: Size, granularity: int) -> dict[str, Any]:
    """Settings whose size and stages suit a picture to begin with.

    Args:
        given: settings; without a width and height the result is as large as the picture, rounded to the granularity,
            and with one of them at its aspect.
        size: width and height of the picture.
        granularity: pixels that sides must be multiples of.

    Warns:
        UserWarning: the picture has another aspect, so that more is cut off than rounding does.
    """
    stages = given.get("stages")
    final = size_like(size, given.get("width"), given.get("height"), stages, granularity)
    warn_of_cut(size, final, granularity)
    return {
        **given,
        "width": final[0],
        "height": final[1],
        "stages": stages_like(size, final, stages, granularity),
    }
