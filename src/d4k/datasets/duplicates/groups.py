"""Which pictures of a whole set are the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from d4k.datasets.duplicates.fingerprint import Fingerprint, distances, packed

__all__ = ["DISTANCE", "groups"]

DISTANCE = 14
"""Bits of 80 in which two pictures of the same may differ; those of others differ in about 40, less chance."""

BLOCK = 512


def groups(prints: Sequence[Fingerprint], distance: int = DISTANCE) -> list[list[int]]:
    """Groups of two and more pictures that are the same, each as indices in ascending order.

    All pairs are compared. What is the same as one of a group belongs to it.

    Args:
        prints: of the pictures.
        distance: bits in which two of a group may differ, from 0 to 80.
    """
    found = packed(list(prints)) if prints else {}
    pairs: list[np.ndarray] = []
    for start in range(0, len(prints), BLOCK):
        one = {name: values[start : start + BLOCK] for name, values in found.items()}
        for other in range(start, len(prints), BLOCK):
            two = {name: values[other : other + BLOCK] for name, values in found.items()}
            near = np.argwhere(distances(one, two) <= distance) + np.array([start, other])
            pairs.append(near[near[:, 0] < near[:, 1]])
    if not pairs:
        return []
    edges = np.concatenate(pairs)
    graph = coo_matrix((np.ones(len(edges), bool), tuple(edges.T)), shape=(len(prints), len(prints)))
    _, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    together = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted([int(index) for index in group] for group in together if len(group) > 1)
