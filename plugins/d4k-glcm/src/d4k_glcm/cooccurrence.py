"""Grey-level co-occurrence of patches, reduced at once to what both entropies need.

A co-occurrence matrix of a 64x64 patch has 4096 cells and there are sixteen of them, yet both entropies only ask *how
often each cell value occurs*. So nothing is normalised, stored or sorted: one count of pixel pairs, one count of those
counts.

    image (3, H, W) ─ grey_levels ─► (H, W) ─ cut_patches ─► (P, 64, 64) ─ patch_entropies ─► (P, 2)

Everything here is a pure function. Shapes: `P` patches, `H W` pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from d4k import DataError

__all__ = ["CELLS", "LEVELS", "OFFSETS", "PATCH", "cut_patches", "grey_levels", "patch_entropies"]

Levels: TypeAlias = npt.NDArray[np.uint8]
Table: TypeAlias = npt.NDArray[Any]

PATCH = 64
"""Height and width of a patch in pixels."""

LEVELS = 64
"""Grey levels after quantisation."""

OFFSETS = tuple(
    (round(math.sin(angle) * distance), round(math.cos(angle) * distance))
    for distance in (1, 2, 3, 4)
    for angle in (0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)
)
"""Rows and columns from a pixel to its partner, for distances 1 to 4 at 0, 45, 90 and 135 degrees, rounded as
scikit-image does: the diagonals of distances 1 and 2 coincide and count twice."""

CELLS = len(OFFSETS) * LEVELS**2
"""Cells of all matrices of a patch."""


def grey_levels(image: Tensor) -> Levels:
    """Grey as OpenCV computes it from 8-bit colour, divided by 4: `(R*4899 + G*9617 + B*1868 + 8192) >> 14`, `// 4`.

    Args:
        image: uint8 (3, H, W), RGB.

    Returns:
        (H, W), in [0, 63].

    >>> grey_levels(torch.full((3, 1, 1), 255, dtype=torch.uint8)).item()
    63
    """
    levels: Levels = _grey(image.cpu().numpy())
    return levels


def cut_patches(levels: Levels) -> Levels:
    """Cut an image into patches of 64x64 that do not overlap, and cover it whole.

    Where a side is no multiple of 64, the last patch is aligned to the border and overlaps its neighbour.

    Args:
        levels: (H, W).

    Returns:
        (P, 64, 64), row by row.

    Raises:
        DataError: the image is smaller than a patch.

    >>> cut_patches(np.zeros((64, 130), np.uint8)).shape
    (3, 64, 64)
    """
    height, width = levels.shape
    if min(height, width) < PATCH:
        raise DataError(
            f"an image of {width}x{height} pixels is smaller than a GLCM patch; {PATCH}x{PATCH} is the least"
        )
    windows = np.lib.stride_tricks.sliding_window_view(levels, (PATCH, PATCH))
    rows, columns = ([*range(0, side - PATCH, PATCH), side - PATCH] for side in (height, width))
    return windows[np.ix_(rows, columns)].reshape(-1, PATCH, PATCH)


def patch_entropies(patches: Levels) -> npt.NDArray[np.float64]:
    """Both entropies of every patch, computed on as many threads as torch uses.

    *Published*: the entropy of how often each cell value occurs among all cells of the sixteen normalised matrices,
    that is `skimage.measure.shannon_entropy` of the 64x64x4x4 array. A value is a quotient, count / pairs;
    quotients that are the same float64 count together wherever they come from: 31 of 3844 pairs and 32 of 3968.

    *Textbook*: `-sum p log2 p` over the cells of a matrix, averaged over the sixteen; between 0 and 12.

    Args:
        patches: (P, 64, 64), in [0, 63].

    Returns:
        (P, 2): published and textbook, in bits.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973, f9.
    """
    shares = np.array_split(patches, min(torch.get_num_threads(), len(patches)))
    with ThreadPoolExecutor(len(shares)) as pool:
        return np.concatenate(list(pool.map(lambda share: _entropies(share, *_TABLES), shares)))


def _tables() -> tuple[Table, Table, Table]:
    """What the kernel looks up.

    Returns:
        offsets (K, 3): rows, columns, and how often the offset occurs among the sixteen.
        ids (K, 4096): of a count in the matrix of an offset, the number of its value.
        values: by that number, the smallest count first where several have it.
    """
    repeats = Counter(OFFSETS)
    pairs = np.array([(PATCH - rows) * (PATCH - abs(columns)) for rows, columns in repeats], dtype=np.float64)
    values = np.arange(PATCH**2)[:, None] / pairs
    _, first, place = np.unique(values.ravel(), return_index=True, return_inverse=True)
    offsets = np.array([(*offset, repeat) for offset, repeat in repeats.items()])
    return offsets, first[place].reshape(values.shape).T.copy(), values.ravel()


_TABLES = _tables()


@njit(nogil=True)
def _grey(image: Levels) -> Levels:
    _, height, width = image.shape
    levels = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            levels[y, x] = (image[0, y, x] * 4899 + image[1, y, x] * 9617 + image[2, y, x] * 1868 + 8192) >> 16
    return levels


@njit(nogil=True)
def _entropies(patches: Levels, offsets: Table, ids: Table, values: Table) -> npt.NDArray[np.float64]:
    scores = np.zeros((len(patches), 2))
    cells = np.zeros((LEVELS, LEVELS), np.int32)
    held = np.zeros(len(values), np.int64)  # how many cells hold a value, by its number; 0 is the number of the value 0
    for patch, levels in enumerate(patches):
        low, high, last = levels.min(), levels.max() + 1, 0
        held[0] = CELLS
        for offset, (rows, columns, repeats) in enumerate(offsets):
            _count_pairs(cells, levels, rows, columns)
            last = max(last, _count_values(held, cells[low:high, low:high], ids[offset], repeats))
        for value in range(last + 1):
            if held[value]:
                share = held[value] / CELLS
                scores[patch, 0] -= share * math.log2(share)
            if held[value] and value:
                scores[patch, 1] -= held[value] * values[value] * math.log2(values[value]) / len(OFFSETS)
            held[value] = 0
    return scores


@njit(nogil=True)
def _count_pairs(cells: Table, levels: Levels, rows: int, columns: int) -> None:
    left, width = max(0, -columns), PATCH - abs(columns)
    for y in range(PATCH - rows):
        here = levels[y, left : left + width]
        there = levels[y + rows, left + columns : left + columns + width]
        for x in range(width):
            cells[here[x], there[x]] += 1


@njit(nogil=True)
def _count_values(held: Table, cells: Table, ids: Table, repeats: int) -> int:
    """Move what lies in the cells to `held`, which leaves them empty; returns the highest number of a value."""
    last = filled = 0
    for row in cells:
        for column in range(len(row)):
            if row[column]:
                value = ids[row[column]]
                held[value] += repeats
                filled += 1
                last = max(last, value)
                row[column] = 0
    held[0] -= filled * repeats
    return last
