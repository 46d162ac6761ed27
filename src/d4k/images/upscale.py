"""Enlarging finished pictures: the two classical filters, and any upscaler called, checked and described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from d4k.errors import ConfigError
from d4k.images.pixels import to_float, to_picture, to_tensor, to_uint8
from d4k.protocols import Upscaler

__all__ = ["Bicubic", "Lanczos", "enlarge", "upscaler_settings"]


@frozen
class Filter:
    """A resampling filter of Pillow, on 8-bit pixels. Where a picture becomes smaller, the filter becomes wider."""

    resampling: ClassVar[Image.Resampling]

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to (B, 3, height, width) in [-1, 1], float32.

        Raises:
            ConfigError: the size is not positive.
        """
        if min(height, width) < 1:
            raise ConfigError(f"a picture cannot become {width}x{height} pixels; both sides must be at least 1")
        resized = [
            to_tensor(to_picture(picture).resize((width, height), self.resampling))
            for picture in to_uint8(pixels.cpu())
        ]
        return to_float(torch.stack(resized)).to(pixels.device)


@frozen
class Lanczos(Filter):
    """Resizes pictures with Pillow's Lanczos filter of three lobes, on 8-bit pixels.

    Source: Duchon, "Lanczos filtering in one and two dimensions", J. Appl. Meteorology 18(8), 1979.

    >>> Lanczos()(torch.zeros(1, 3, 4, 4), 8, 12).shape
    torch.Size([1, 3, 8, 12])
    """

    resampling: ClassVar[Image.Resampling] = Image.Resampling.LANCZOS


@frozen
class Bicubic(Filter):
    """Resizes pictures with Pillow's bicubic filter, whose parameter a is -0.5, on 8-bit pixels.

    It is softer than Lanczos, and rings less at hard edges.

    Source: Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981.

    >>> Bicubic()(torch.zeros(1, 3, 4, 4), 8, 12).shape
    torch.Size([1, 3, 8, 12])
    """

    resampling: ClassVar[Image.Resampling] = Image.Resampling.BICUBIC


@torch.no_grad()
def enlarge(upscaler: Upscaler, name: str, pixels: Tensor, height: int, width: int) -> Tensor:
    """What an upscaler makes of pixels, checked.

    Args:
        upscaler: asked, unless the pixels have the size already.
        name: registered, for messages.
        pixels: (B, 3, H, W) in [-1, 1].
        height: of the result in pixels.
        width: likewise.

    Returns:
        (B, 3, height, width), about in [-1, 1].

    Raises:
        ConfigError: the upscaler returns another size, or values that are no numbers.

    >>> enlarge(Lanczos(), "lanczos", torch.zeros(1, 3, 4, 4), 8, 12).shape
    torch.Size([1, 3, 8, 12])
    """
    wanted = (len(pixels), 3, height, width)
    if pixels.shape == wanted:
        return pixels
    result = upscaler(pixels, height, width)
    if result.shape != wanted:
        raise ConfigError(
            f"upscaler '{name}' returned {tuple(result.shape)} where {wanted} was asked for; use another upscaler"
        )
    if not torch.isfinite(result).all():
        raise ConfigError(
            f"upscaler '{name}' returned values that are no numbers; use another upscaler, or other weights"
        )
    return result


def upscaler_settings(upscaler: Upscaler) -> dict[str, Any]:
    """What decides the pictures of an upscaler beside its name and options, such as the digest of its weights.

    Args:
        upscaler: whose `settings` are asked for; one that has none is described by its name and options.

    Raises:
        D4KError: the upscaler cannot work here, such as without its weights.

    >>> upscaler_settings(Lanczos())
    {}
    """
    found: Mapping[str, Any] = getattr(upscaler, "settings", {})
    return dict(found)
