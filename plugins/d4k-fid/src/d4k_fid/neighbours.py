"""Precision and recall by nearest neighbours, and of many resamples at once.

A set of rows is taken for the balls around them, each just large enough to hold the row's three nearest neighbours.
Precision is the share of pictures that lie in a ball of the references, recall the share of references that lie in a
ball of the pictures (Kynkaanniemi et al. 2019, arXiv 1904.06991, equations 1 and 2).

A resample leaves some pictures out and has others twice. A picture that is there twice is one ball: its copy, at
distance zero, is not counted as a neighbour, or all balls would shrink. So a resample's balls are those of its
different pictures, and the copies count in the share only.

Legend: N rows of pictures, M of references, D features, R resamples.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["precisions", "recalls"]

CELLS = 2**22
"""Numbers that are held at once, 32 MiB of float64."""

NEAREST = 64
"""Neighbours among which those present in a resample are sought first."""


def precisions(rows: Tensor, weights: Tensor, references: Tensor, neighbours: int = 3) -> Tensor:
    """The share of pictures in the balls of the references, of each resample.

    Args:
        rows: (N, D).
        weights: (R, N).
        references: (M, D), more than `neighbours`.
        neighbours: which neighbour is on the surface of a ball.

    Returns:
        (R,) float64, in [0, 1].
    """
    rows, weights, references = rows.double(), weights.double(), references.double()
    everyone = torch.ones(1, len(references), dtype=torch.bool)
    radii = _radii(references, everyone, neighbours)[0]
    inside = [(torch.cdist(part, references) <= radii).any(1) for part in torch.split(rows, _step(len(references)))]
    return weights @ torch.cat(inside).double() / weights.sum(1)


def recalls(rows: Tensor, weights: Tensor, references: Tensor, neighbours: int = 3) -> Tensor:
    """The share of references in the balls of the pictures, of each resample.

    Args:
        rows: (N, D), more than `neighbours`.
        weights: (R, N); a picture of weight 0 has no ball.
        references: (M, D).
        neighbours: which neighbour is on the surface of a ball; the farthest, in a resample of fewer pictures.

    Returns:
        (R,) float64, in [0, 1].
    """
    rows, references = rows.double(), references.double()
    radii = _radii(rows, weights > 0, neighbours)
    found = radii.new_zeros(len(radii))
    for part in torch.split(references, _step(len(rows))):
        distances = torch.cdist(part, rows)
        for place, balls in enumerate(radii):
            found[place] += (distances <= balls).any(1).sum()
    return found / len(references)


def _radii(rows: Tensor, present: Tensor, neighbours: int) -> Tensor:
    """The radius of each row's ball in each resample, (R, N); below zero where the row is not there."""
    count = len(rows)
    wanted = (present.sum(1) - 1).clamp(max=neighbours)  # in each resample, which neighbour is on the surface
    radii = torch.full(present.shape, -1.0, dtype=torch.float64)
    first = 0
    for part in torch.split(rows, _step(max(count, min(NEAREST, count) * len(present)))):
        distances = torch.cdist(part, rows)
        own = torch.arange(len(part))
        distances[own, first + own] = -1  # first of its row, also where there is another picture like it
        values, order = distances.sort(1)
        found = _nearest(values[:, 1 : NEAREST + 1], order[:, 1 : NEAREST + 1], present, wanted)
        for short in (found < 0).any(1).nonzero()[:, 0]:  # few are present, or those far away: seek among all
            here = slice(int(short), int(short) + 1)
            found[here] = _nearest(values[:, 1:], order[:, 1:], present[here], wanted[here])
        radii[:, first : first + len(part)] = found
        first += len(part)
    return torch.where(present, radii, -1.0)


def _nearest(values: Tensor, order: Tensor, present: Tensor, wanted: Tensor) -> Tensor:
    """The distance of the wanted neighbour among those present, (R, rows); -1 where there are not enough of them."""
    ranks = present[:, order].to(torch.int32).cumsum(2)  # (R, rows, neighbours)
    hit = ranks >= wanted[:, None, None]
    distance = values.expand(len(present), -1, -1).gather(2, hit.int().argmax(2, keepdim=True))[..., 0]
    distance = torch.where(hit.any(2), distance, -1.0)
    return torch.where(wanted[:, None] > 0, distance, 0.0)


def _step(others: int) -> int:
    return max(1, CELLS // others)
