"""Pictures as tensors and back: the one place where 8-bit pixels become floats in [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from d4k.errors import DataError

__all__ = ["to_float", "to_picture", "to_tensor", "to_uint8"]


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as a uint8 tensor (3, H, W).

    Raises:
        DataError: the picture is not in mode RGB.

    >>> to_tensor(Image.new("RGB", (4, 2))).shape
    torch.Size([3, 2, 4])
    """
    if image.mode != "RGB":
        raise DataError(f"a picture of mode {image.mode} cannot become a tensor; allowed: RGB. Try: open_picture")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_float(pixels: Tensor) -> Tensor:
    """`pixels / 127.5 - 1`: uint8 of any shape to float32 in [-1, 1].

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(pixels: Tensor) -> Tensor:
    """Inverse of `to_float`: [-1, 1] of any shape to uint8, rounded half to even; what lies outside is clamped.

    Raises:
        DataError: a value is NaN or infinite, which no grey level stands for.

    >>> to_uint8(torch.tensor([-3.0, 0.25, 1.0]))
    tensor([  0, 159, 255], dtype=torch.uint8)
    """
    if pixels.numel() and not all(end.isfinite() for end in pixels.aminmax()):  # NaN shows in either end
        raise DataError(
            "the picture holds values that are not finite numbers: the model computed NaN or infinity. "
            "Are guidance and shift sensible, and is dtype wide enough (bfloat16 for float16)?"
        )
    return ((pixels.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_picture(pixels: Tensor) -> Image.Image:
    """A uint8 tensor (3, H, W) as an RGB picture; inverse of `to_tensor`."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
