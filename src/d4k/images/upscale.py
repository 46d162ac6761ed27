"""Enlarging finished pictures with a classical filter."""

from __future__ import annotations

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from d4k.errors import ConfigError
from d4k.images.pixels import to_float, to_picture, to_tensor, to_uint8

__all__ = ["Lanczos"]


@frozen
class Lanczos:
    """Resizes pictures with Pillow's Lanczos filter of three lobes, on 8-bit pixels.

    Source: Duchon, "Lanczos filtering in one and two dimensions", J. Appl. Meteorology 18(8), 1979.

    >>> Lanczos()(torch.zeros(1, 3, 4, 4), 8, 12).shape
    torch.Size([1, 3, 8, 12])
    """

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to (B, 3, height, width) in [-1, 1], float32.

        Raises:
            ConfigError: the size is not positive.
        """
        if min(height, width) < 1:
            raise ConfigError(f"a picture cannot become {width}x{height} pixels; both sides must be at least 1")
        resized = [
            to_tensor(to_picture(picture).resize((width, height), Image.Resampling.LANCZOS))
            for picture in to_uint8(pixels.cpu())
        ]
        return to_float(torch.stack(resized)).to(pixels.device)
