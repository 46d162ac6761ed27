"""From a picture to what a network sees: resized whole as published or without aliasing, or cut into patches.

Everything is a pure function of one picture, uint8 (3, H, W). What a network sees is float32 in [0, 255].
"""

from __future__ import annotations

import hashlib
import random
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms import functional as transforms

from d4k import DataError

__all__ = ["PATCH", "Fit", "clean", "cut_grid", "cut_random", "published"]

Fit: TypeAlias = Literal["crop", "squash"]
"""How a picture becomes square: its middle is cut out, or the whole of it is squeezed."""

PATCH = 299
"""Height and width of a patch in pixels: the input of Inception, which therefore resizes nothing."""


def published(image: Tensor, side: int, *, size: int, fit: Fit, antialias: bool) -> Tensor:
    """Resize to `size` in 8 bits, and then to the network's input as the network does.

    First the short side is brought to `size` (bilinear, antialiased, as torchvision does) and the middle is cut out, or
    the whole is squeezed; that is rounded to 8 bits. Then it is resized to `side`: as TensorFlow 1 did it, with four
    pixels for each of the result and no antialiasing, or, with `antialias`, as torchmetrics does it since July 2025.

    Args:
        image: uint8 (3, H, W).
        side: height and width of the network's input.
        size: pixels a side in between.
        fit: how it becomes square.
        antialias: of the second step.

    Returns:
        (3, side, side) float32, in [0, 255].
    """
    wanted = [size] if fit == "crop" else [size, size]
    image = transforms.resize(image, wanted, transforms.InterpolationMode.BILINEAR, antialias=True)
    square: Tensor = transforms.center_crop(image, [size, size])[None].float()
    if antialias:
        return F.interpolate(square, (side, side), mode="bilinear", align_corners=False, antialias=True)[0]
    result: Tensor = interpolate_bilinear_2d_like_tensorflow1x(square, (side, side), align_corners=False)[0]
    return result


def clean(image: Tensor, side: int, *, fit: Fit) -> Tensor:
    """Resize to the network's input in one step by Pillow's antialiased bicubic filter, unrounded and clipped.

    Args:
        image: uint8 (3, H, W).
        side: height and width of the result.
        fit: how it becomes square; "squash" is what clean-fid does.

    Returns:
        (3, side, side) float32, in [0, 255].

    Source: Parmar et al. 2022, arXiv 2104.11222.
    """
    if fit == "crop":
        image = transforms.center_crop(image, [min(image.shape[1:])] * 2)
    channels = [Image.fromarray(channel) for channel in image.cpu().numpy().astype(np.float32)]
    resized = [channel.resize((side, side), Image.Resampling.BICUBIC) for channel in channels]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in resized]).clip(0, 255))


def cut_grid(image: Tensor) -> Tensor:
    """All patches of a picture, row by row, that cover it whole: the last of each row and column ends at the border.

    Returns:
        (K, 3, 299, 299), of the dtype of the picture.

    Raises:
        DataError: the picture is smaller than a patch.

    >>> cut_grid(torch.zeros(3, 299, 600, dtype=torch.uint8)).shape[0]
    3
    """
    height, width = _sides(image)
    rows, columns = ([*range(0, side - PATCH, PATCH), side - PATCH] for side in (height, width))
    return _cut(image, [(top, left) for top in rows for left in columns])


def cut_random(image: Tensor, count: int, seed: int) -> Tensor:
    """Patches at random places, which may overlap.

    The places depend on the seed and on what is in the picture, so that the same picture always gives the same patches
    and two pictures are cut at different places.

    Args:
        image: uint8 (3, H, W).
        count: how many.
        seed: of the places.

    Returns:
        (count, 3, 299, 299), of the dtype of the picture.

    Raises:
        DataError: the picture is smaller than a patch.
    """
    height, width = _sides(image)
    number = hashlib.blake2b(f"{seed}/patch-fid/".encode(), digest_size=8)
    number.update(image.cpu().contiguous().numpy().data)
    rng = random.Random(int.from_bytes(number.digest(), "big"))
    return _cut(image, [(rng.randint(0, height - PATCH), rng.randint(0, width - PATCH)) for _ in range(count)])


def _sides(image: Tensor) -> tuple[int, int]:
    height, width = image.shape[1:]
    if min(height, width) < PATCH:
        raise DataError(f"a picture of {width}x{height} pixels is smaller than a patch; {PATCH}x{PATCH} is the least")
    return height, width


def _cut(image: Tensor, corners: list[tuple[int, int]]) -> Tensor:
    return torch.stack([image[:, top : top + PATCH, left : left + PATCH] for top, left in corners])
