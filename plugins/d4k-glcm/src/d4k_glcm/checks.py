"""What the options of the metrics may be, and what they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from attrs import Attribute
from torch import Tensor

from d4k import DataError
from d4k_glcm.cooccurrence import PATCH

__all__ = ["are_distances", "check_pictures", "is_levels", "to_distances"]


def is_levels(_: object, attribute: Attribute[Any], value: object) -> None:
    """A power of two from 2 to 256."""
    allowed = [2**bits for bits in range(1, 9)]
    if value not in allowed or isinstance(value, bool):
        raise ValueError(f"{attribute.name} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def to_distances(value: Any) -> Any:
    """A list from TOML as a tuple; one number as a tuple of it."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(value)
    return (value,)


def are_distances(_: object, attribute: Attribute[Any], value: tuple[object, ...]) -> None:
    """One or more whole numbers of pixels that fit into a patch, each once."""
    good = all(isinstance(far, int) and not isinstance(far, bool) and 0 < far < PATCH for far in value)
    if not value or not good or len(set(value)) < len(value):
        raise ValueError(
            f"{attribute.name} must be different whole numbers from 1 to {PATCH - 1}, such as [1, 2, 3, 4], "
            f"got {list(value)}"
        )


def check_pictures(image: Sequence[Tensor]) -> None:
    """Refuse anything but pictures of 8 bits.

    Raises:
        DataError: a picture is no uint8 (3, H, W).
    """
    for picture in image:
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
            raise DataError(f"pictures must be uint8 (3, H, W), got {picture.dtype} {tuple(picture.shape)}")
