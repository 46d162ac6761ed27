"""Tensors as a store keeps them: in the dtype of their group, and without what their other values tell.

Of a tensor whose last dimension holds features, two things need not be stored: zeros that a row ends with (SD3 pads the
features of CLIP to the width of T5), and rows at the end that repeat the row before them. Both come back bit by bit.
A row of padding that differs from the row before it is content: the encoders of SD3 and FLUX.1 run without a mask, and
their denoisers attend to such rows. It is stored like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

__all__ = ["Layout", "narrow", "pack", "unpack"]

Layout = dict[str, Any]
"""How a stored tensor is unfolded: its shape, the dtype it had, the rows that are stored, and runs of their widths."""

RUNS = 16
"""Runs of rows of one width that are told apart; a tensor with more is stored at full width."""


def narrow(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU in the dtype of a store; whole numbers and truth values stay what they are."""
    return tensor.detach().to(device="cpu", dtype=dtype if tensor.is_floating_point() else None).contiguous()


def pack(tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, Layout]:
    """A tensor as it is stored.

    Args:
        tensor: of any shape.
        dtype: of the stored numbers.

    Returns:
        The values that are stored (K,), and how `unpack` makes the tensor of them.
    """
    stored = narrow(tensor, dtype)
    layout: Layout = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if tensor.ndim < 2 or not tensor.numel():
        return stored.reshape(-1), layout
    rows = stored.reshape(-1, stored.shape[-1])
    content = rows.view(torch.uint8).reshape(len(rows), -1)  # bits: -0 is not 0, and NaN is itself
    kept = _distinct(content)
    runs = _runs(content[:kept], rows.element_size())
    layout |= {"kept": kept, "runs": runs}
    parts, first = [], 0
    for count, width in runs:
        parts.append(rows[first : first + count, :width].reshape(-1))
        first += count
    return torch.cat(parts), layout


def unpack(stored: Tensor, layout: Mapping[str, Any]) -> Tensor:
    """Inverse of `pack`: the tensor in the dtype that it had, its values rounded to that of the store."""
    shape, dtype = layout["shape"], getattr(torch, layout["dtype"])
    if "kept" not in layout:
        return stored.reshape(shape).to(dtype)
    width = shape[-1]
    rows = stored.new_zeros(torch.Size(shape).numel() // width, width)
    first = start = 0
    for count, used in layout["runs"]:
        rows[first : first + count, :used] = stored[start : start + count * used].reshape(count, used)
        first, start = first + count, start + count * used
    rows[first:] = rows[first - 1]
    return rows.reshape(shape).to(dtype)


def _distinct(content: Tensor) -> int:
    """The number of rows without those at the end that repeat the row before them."""
    differs = (content[1:] != content[:-1]).any(1).nonzero()
    return int(differs[-1]) + 2 if len(differs) else 1


def _runs(content: Tensor, itemsize: int) -> list[list[int]]:
    """How many values of each row come before the zeros at its end, as [rows, values] of rows that are alike."""
    places = torch.arange(1, content.shape[1] + 1)
    last = torch.where(content != 0, places, 0).amax(1)
    widths = (last + itemsize - 1).div(itemsize, rounding_mode="floor").tolist()
    runs = [[len(list(alike)), int(width)] for width, alike in groupby(widths)]
    return runs if len(runs) <= RUNS else [[len(content), content.shape[1] // itemsize]]
