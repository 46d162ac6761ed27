"""The Frechet distance between two sets of rows, exact for fewer rows than dimensions, and of many resamples at once.

With the centred rows A (N, D) and B (M, D), each divided by the root of its count less one, the covariances are
`A^T A` and `B^T B`, and the trace of the root of their product is the sum of the singular values of `A B^T`: the
nuclear norm. So no root of a D x D matrix of rank 194 is taken, which is where the usual way loses its digits.

Legend: N rows of pictures, M of references, D features, R resamples, K the rank of the references.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["frechet_distances"]


def frechet_distances(rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
    """The squared Frechet distance of Gaussians fitted to rows and to references, for each of R resamples.

    `|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))`, with covariances divided by the count less one. It equals
    that of a set in which row n is there `weights[r, n]` times.

    One resample is computed by singular values. Of several the eigenvalues of the smaller Gram matrix are taken, which
    is some ten times faster: there, half of the digits of singular values near zero are lost, and none of the others.

    Args:
        rows: (N, D).
        weights: (R, N), at least 0, the sum of each row more than 1.
        references: (M, D), at least two.

    Returns:
        (R,) float64.

    Source: Heusel et al. 2017, arXiv 1706.08500, equation 6; Dowson & Landau, J. Multivariate Analysis 12(3), 1982.

    >>> rows = torch.tensor([[0.0], [2.0]])
    >>> frechet_distances(rows, torch.ones(1, 2), rows + 3)
    tensor([9.], dtype=torch.float64)
    """
    rows, weights, references = rows.double(), weights.double(), references.double()
    middle = references.mean(0)
    offset = rows.mean(0) - middle
    rows, references = rows - rows.mean(0), references - middle
    spread = references.square().sum() / (len(references) - 1)
    cross = rows @ _factor(references).T  # (N, K): all that the resamples need of the references

    total = weights.sum(1)
    means = weights @ rows / total[:, None]
    spreads = (weights @ rows.square().sum(1) - total * means.square().sum(1)) / (total - 1)
    find = _singular_sum if len(weights) == 1 else _root_sum
    norms = torch.stack([find(_centred(cross, counts)) for counts in weights])
    return (means + offset).square().sum(1) + spreads + spread - 2 * norms


def _factor(centred: Tensor) -> Tensor:
    """F (K, D) of full rank, such that `F^T F` is the covariance of centred rows (M, D)."""
    count = len(centred)
    if count > centred.shape[1]:
        centred = torch.linalg.qr(centred, mode="r").R
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    kept = values > values.max() * max(centred.shape) * torch.finfo(values.dtype).eps
    factor: Tensor = values[kept, None] * directions[kept] / (count - 1) ** 0.5
    return factor


def _centred(cross: Tensor, counts: Tensor) -> Tensor:
    """The rows of a resample, centred and weighted so that squares sum to a covariance; without those left out."""
    kept = counts > 0
    counts, cross = counts[kept], cross[kept]
    total = counts.sum()
    return (cross - counts @ cross / total) * (counts / (total - 1)).sqrt()[:, None]


def _singular_sum(matrix: Tensor) -> Tensor:
    total: Tensor = torch.linalg.svdvals(matrix).sum()
    return total


def _root_sum(matrix: Tensor) -> Tensor:
    """The sum of the singular values of centred rows."""
    wide = matrix.shape[0] <= matrix.shape[1]
    squares = torch.linalg.eigvalsh(matrix @ matrix.T if wide else matrix.T @ matrix)
    total: Tensor = squares[1 if wide else 0 :].clamp(min=0).sqrt().sum()  # one of centred rows is zero: do not root it
    return total
