"""Grey-level co-occurrence of patches, reduced at once to what both entropies need.

A co-occurrence matrix of a 64x64 patch has 4096 cells and there are sixteen of them, yet both entropies only ask *how
many cells hold the count c*. So the matrices are never normalised, and never sorted: one count of pixel pairs, one count
of those counts.

    image (3, H, W) ─ grey_levels ─► (H, W) ─ cut_patches ─► (P, 64, 64) ─ count_cells ─► (P, 7, c) ─► an entropy (P,)

Everything here is a pure function on the CPU. Shapes: `P` patches, `H W` pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from d4k import DataError

__all__ = [
    "LEVELS",
    "OFFSETS",
    "PAIRS",
    "PATCH",
    "count_cells",
    "cut_patches",
    "grey_levels",
    "haralick_entropy",
    "image_score",
    "value_entropy",
]

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
scikit-image does; the diagonals of distances 1 and 2 coincide and count twice."""

_REPEATS = Counter(OFFSETS)
_PAIRS = [(PATCH - rows) * (PATCH - abs(columns)) for rows, columns in _REPEATS]
_CLASSES = dict(zip(_PAIRS, _REPEATS.values(), strict=True))
PAIRS = list(_CLASSES)
"""How many pixel pairs a matrix may rest on."""

_CELLS = torch.tensor([_PAIRS.count(pairs) * repeats * LEVELS**2 for pairs, repeats in _CLASSES.items()])
_CHUNK = 16  # patches at a time: few calls, and tables that stay in the cache


def grey_levels(image: Tensor) -> Tensor:
    """Grey as OpenCV computes it from 8-bit colour, divided by 4: `(R*4899 + G*9617 + B*1868 + 8192) >> 14`, `// 4`.

    Args:
        image: uint8 (3, H, W), RGB.

    Returns:
        int32 (H, W), in [0, 63].

    >>> grey_levels(torch.full((3, 1, 1), 255, dtype=torch.uint8)).item()
    63
    """
    red, green, blue = image.to("cpu", torch.int32)
    return (red * 4899).add_(green, alpha=9617).add_(blue, alpha=1868).add_(8192).bitwise_right_shift_(16)


def cut_patches(levels: Tensor) -> Tensor:
    """Cut an image into patches of 64x64 that do not overlap, and cover it whole.

    Where a side is no multiple of 64, the last patch is aligned to the border and overlaps its neighbour.

    Args:
        levels: (H, W).

    Returns:
        (P, 64, 64), row by row.

    Raises:
        DataError: the image is smaller than a patch.

    >>> cut_patches(torch.zeros(64, 130)).shape
    torch.Size([3, 64, 64])
    """
    height, width = levels.shape
    if min(height, width) < PATCH:
        raise DataError(f"an image of {width}x{height} pixels is smaller than a GLCM patch; {PATCH}x{PATCH} is the least")
    starts = [[*range(0, side - PATCH, PATCH), side - PATCH] for side in (height, width)]
    return torch.stack([levels[y : y + PATCH, x : x + PATCH] for y in starts[0] for x in starts[1]])


def count_cells(patches: Tensor) -> Tensor:
    """Count the cells of the sixteen co-occurrence matrices by how many pixel pairs they hold.

    Matrices with equally many pairs are counted together; there are seven such classes, `PAIRS`.

    Args:
        patches: int32 (P, 64, 64), in [0, 63].

    Returns:
        int64 (P, 7, c): at [p, n, k], how many cells of patch p hold k pairs in the matrices of `PAIRS[n]` pairs;
        c is one more than the largest count.
    """
    patches = patches - patches.amin((1, 2), keepdim=True)  # the scores do not ask where a cell is, so keep few
    span = int(patches.max()) + 1
    held = torch.zeros(len(patches), len(PAIRS), PATCH**2, dtype=torch.int64)
    most = 0
    for codes, pairs in zip(_pair_codes(patches, span), _PAIRS, strict=True):
        cells = torch.bincount(codes, minlength=len(patches) * span**2).reshape(len(patches), -1)
        part = _bincount_rows(cells, len(patches))
        held[:, PAIRS.index(pairs), : part.shape[1]] += part * _CLASSES[pairs]
        most = max(most, part.shape[1])
    held[..., 0] += _CELLS - held.sum(-1)
    return held[..., :most]


def value_entropy(held: Tensor) -> Tensor:
    """The published score: the entropy of how often each cell *value* occurs in the normalised matrices.

    Values are quotients count / pairs, and those that are the same float64 count together wherever they come from:
    31 pairs of 3844 and 32 of 3968 are one value, 1 / 124.

    Args:
        held: what `count_cells` returns.

    Returns:
        float64 (P,), in bits; that of `skimage.measure.shannon_entropy` over the 64x64x4x4 array.
    """
    patch, pairs, count, cells = _entries(held)
    value = _first_of_equal_values()[count * len(PAIRS) + pairs]
    keys, place = torch.unique(patch * _first_of_equal_values().numel() + value, return_inverse=True)
    merged = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, place, cells)
    patch = keys // _first_of_equal_values().numel()
    return _sum_by_patch(held, patch, torch.special.entr(merged / _CELLS.sum()))


def haralick_entropy(held: Tensor) -> Tensor:
    """The textbook entropy of a co-occurrence matrix, -sum p log2 p over its cells, averaged over the sixteen.

    Args:
        held: what `count_cells` returns.

    Returns:
        float64 (P,), in bits, between 0 and 12.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973, f9.
    """
    patch, pairs, count, cells = _entries(held)
    probability = count / torch.tensor(PAIRS, dtype=torch.float64)[pairs]
    return _sum_by_patch(held, patch, torch.special.entr(probability) * cells) / len(OFFSETS)


def image_score(image: Tensor, entropy: Callable[[Tensor], Tensor]) -> float:
    """Mean of an entropy over the patches of an image, computed on as many threads as torch uses.

    Args:
        image: uint8 (3, H, W), RGB.
        entropy: `value_entropy` or `haralick_entropy`.

    Returns:
        Bits.

    Raises:
        DataError: the image is smaller than a patch.
    """
    patches = cut_patches(grey_levels(image))
    span = patches.amax((1, 2)) - patches.amin((1, 2))
    chunks = patches[span.argsort()].split(_CHUNK)  # alike in contrast, so that none makes its neighbours' tables long
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return torch.cat(list(pool.map(lambda chunk: entropy(count_cells(chunk)), chunks))).mean().item()


def _pair_codes(patches: Tensor, span: int) -> Iterator[Tensor]:
    """For every distinct offset, one number a pixel pair: patch, level here, level there."""
    patches = patches.permute(1, 2, 0).contiguous()  # patches innermost: long runs, and no cell hit twice in a row
    first = patches * span + torch.arange(patches.shape[-1], dtype=torch.int32) * span**2
    for rows, columns in _REPEATS:
        here, there = _overlap(columns)
        yield (first[: PATCH - rows, here] + patches[rows:, there]).flatten()


def _entries(held: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where `held` is not zero (patch, class, count), and what it holds there, as float64."""
    patch, pairs, count = held.nonzero(as_tuple=True)
    return patch, pairs, count, held[patch, pairs, count].double()


def _sum_by_patch(held: Tensor, patch: Tensor, nats: Tensor) -> Tensor:
    return torch.zeros(len(held), dtype=torch.float64).index_add_(0, patch, nats) / math.log(2)


def _overlap(shift: int) -> tuple[slice, slice]:
    """Columns of the pixels that have a partner `shift` columns to the right, and the columns of the partners."""
    return slice(max(0, -shift), PATCH - max(0, shift)), slice(max(0, shift), PATCH - max(0, -shift))


@cache
def _first_of_equal_values() -> Tensor:
    """For every (count, class), flattened with the class last: the first one whose value is the same float64."""
    values = np.arange(PATCH**2)[:, None] / np.array(PAIRS, dtype=np.float64)
    _, first, inverse = np.unique(values.ravel(), return_index=True, return_inverse=True)
    return torch.from_numpy(first[inverse])
