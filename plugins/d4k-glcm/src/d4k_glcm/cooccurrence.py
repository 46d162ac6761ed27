"""Grey-level co-occurrence of patches, reduced at once to what is asked of it.

A co-occurrence matrix of a 64x64 patch has 4096 cells and there are sixteen of them, yet both entropies only ask *how
often each cell value occurs*. So nothing is normalised, stored or sorted: one count of pixel pairs, one count of those
counts.

    image (3, H, W) ─ grey_levels ─► (H, W) ─ cut_patches ─► (P, 64, 64) ┬ patch_entropies ──► (P, 2)
                                                                          └ patch_properties ─► (P, 6)

Everything here is a pure function. Shapes: `P` patches, `H W` pixels. `d4k_glcm.kernels` has the loops, and
`d4k_glcm.tensors` the same for accelerators.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from attrs import frozen
from torch import Tensor

from d4k import DataError
from d4k_glcm.kernels import PATCH, PROPERTIES, Levels, Tables, entropies, grey, properties

__all__ = [
    "PATCH",
    "PROPERTIES",
    "PUBLISHED",
    "Form",
    "cut_patches",
    "grey_levels",
    "make_tables",
    "patch_entropies",
    "patch_properties",
]


@frozen
class Form:
    """Which co-occurrence matrices are made of a patch.

    Args:
        levels: grey levels after quantisation, a power of two from 2 to 256.
        distances: pixels between the two of a pair, each at 0, 45, 90 and 135 degrees.
        symmetric: whether each pair counts in both directions.
    """

    levels: int = 64
    distances: tuple[int, ...] = (1, 2, 3, 4)
    symmetric: bool = False

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns from a pixel to its partner, rounded as scikit-image does.

        The diagonals of distances 1 and 2 coincide, and count twice.
        """
        angles = (0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)
        return tuple((round(math.sin(a) * far), round(math.cos(a) * far)) for far in self.distances for a in angles)

    @property
    def cells(self) -> int:
        """Cells of all matrices of a patch."""
        return len(self.offsets) * self.levels**2


PUBLISHED = Form()
"""The matrices of Diffusion-4K: 64 grey levels, distances 1 to 4, each pair in one direction."""


def grey_levels(image: Tensor, levels: int = 64) -> Levels:
    """Grey as OpenCV computes it from 8-bit colour, quantised: `(R*4899 + G*9617 + B*1868 + 8192) >> 14`, `// 4`.

    Args:
        image: uint8 (3, H, W), RGB.
        levels: how many grey levels there are, a power of two; 64 divides by 4.

    Returns:
        (H, W), from 0 to `levels - 1`.

    >>> grey_levels(torch.full((3, 1, 1), 255, dtype=torch.uint8)).item()
    63
    """
    quantised: Levels = grey(image.cpu().contiguous().numpy(), 9 - levels.bit_length())
    return quantised


def cut_patches(levels: npt.NDArray[Any]) -> npt.NDArray[Any]:
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


def patch_entropies(patches: Levels, form: Form = PUBLISHED) -> npt.NDArray[np.float64]:
    """Both entropies of every patch, computed on as many threads as torch uses.

    *Published*: the entropy of how often each cell value occurs among all cells of the normalised matrices, that is
    `skimage.measure.shannon_entropy` of the 64x64x4x4 array. A value is a quotient, count / pairs; quotients that are
    the same float64 count together wherever they come from: 31 of 3844 pairs and 32 of 3968.

    *Textbook*: `-sum p log2 p` over the cells of a matrix, averaged over the matrices; between 0 and 12.

    Args:
        patches: (P, 64, 64), each below `form.levels`.
        form: of the matrices.

    Returns:
        (P, 2): published and textbook, in bits.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973, f9.
    """
    return _shared(entropies, patches, form)


def patch_properties(patches: Levels, form: Form = PUBLISHED) -> npt.NDArray[np.float64]:
    """Haralick's properties of every patch as scikit-image defines them, computed on as many threads as torch uses.

    Where the first pixels of all pairs are alike, or the second, the correlation is 1.

    Args:
        patches: (P, 64, 64), each below `form.levels`.
        form: of the matrices.

    Returns:
        (P, 6): PROPERTIES, each the mean over the matrices.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973.
    """
    return _shared(properties, patches, form)


def _shared(kernel: Callable[..., Any], patches: Levels, form: Form) -> npt.NDArray[np.float64]:
    tables = make_tables(form)
    shares = np.array_split(patches, min(torch.get_num_threads(), len(patches)))
    with ThreadPoolExecutor(len(shares)) as pool:
        return np.concatenate(list(pool.map(lambda share: kernel(share, tables, form.levels, form.symmetric), shares)))


@lru_cache(maxsize=8)
def make_tables(form: Form) -> Tables:
    """The different offsets of a form, and the values that cells may have."""
    repeats = Counter(form.offsets)
    ways = 2 if form.symmetric else 1
    pairs = np.array([ways * (PATCH - rows) * (PATCH - abs(columns)) for rows, columns in repeats])
    quotients = np.arange(ways * PATCH**2)[:, None] / pairs
    values, ids = np.unique(quotients, return_inverse=True)
    terms = np.concatenate([np.zeros(1), values[1:] * np.log2(values[1:])])
    offsets = np.array([(*offset, repeat) for offset, repeat in repeats.items()], dtype=np.int64)
    return Tables(offsets, pairs, ids.reshape(quotients.shape).T.copy(), terms)
