"""The kernel distance (KID) of two sets of rows, over all pairs, and of many resamples at once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kernel_distances"]

CELLS = 2**22
"""Numbers that are held at once, 32 MiB of float64."""


def kernel_distances(rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
    """The unbiased squared maximum mean discrepancy of R resamples, with the kernel `(x . y / D + 1)^3`.

    It is the mean kernel of two pictures, and of two references, less twice that of a picture and a reference. All
    pairs are counted, where the usual implementations average random subsets of 1000 to save memory: the expectation
    is the same, nothing is random, and 195 pictures suffice.

    A picture is never paired with its own copy in a resample: such pairs would let the distance grow by the difference
    between `k(x, x)` and `k(x, y)`. A resample of copies of one picture alone has no other pairs, and there they count.

    Args:
        rows: (N, D), at least two.
        weights: (R, N), at least 0, the sum of each row more than 1.
        references: (M, D), at least two.

    Returns:
        (R,) float64.

    Source: Binkowski et al. 2018, arXiv 1801.01401, section 4; Gretton et al. 2012, JMLR 13, equation 3.

    >>> rows = torch.tensor([[0.0], [2.0]])
    >>> kernel_distances(rows, torch.ones(1, 2), rows)  # 1 and 1, less twice (1 + 1 + 1 + 125) / 4
    tensor([-62.], dtype=torch.float64)
    """
    rows, weights, references = rows.double(), weights.double(), references.double()
    between = torch.cat([_kernel(part, references).mean(1) for part in torch.split(rows, _step(references))])
    total = weights.sum(1)
    paired, pairs = _within(rows, weights), total.square() - weights.square().sum(1)
    alone = weights @ (rows.square().sum(1) / rows.shape[1] + 1) ** 3 / total
    near = torch.where(pairs > 0, paired / pairs.clamp(min=1e-300), alone)
    count = len(references)
    far = _within(references, references.new_ones(1, count)) / (count * (count - 1))
    return near + far - 2 * (weights @ between) / total


def _within(rows: Tensor, weights: Tensor) -> Tensor:
    """The kernels of all pairs of two different rows, summed with the product of their weights, (R,)."""
    sums = weights.new_zeros(len(weights))
    first = 0
    for part in torch.split(rows, _step(rows)):
        kernel = _kernel(part, rows)
        kernel[torch.arange(len(part)), torch.arange(first, first + len(part))] = 0
        sums += (weights[:, first : first + len(part)] * (weights @ kernel.T)).sum(1)
        first += len(part)
    return sums


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _step(others: Tensor) -> int:
    return max(1, CELLS // len(others))
