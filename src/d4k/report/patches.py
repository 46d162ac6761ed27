"""The scores of patches as heat maps, and the patches that stand out."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from attrs import field, frozen
from PIL import Image
from torch import Tensor

from d4k.errors import D4KError, DataError
from d4k.evaluation.agreement import metric_of
from d4k.protocols import Score
from d4k.report.data import PatchData, PatchesData

__all__ = ["Map", "PatchScorer", "colour", "ends", "extremes", "make_scorers"]

Map: TypeAlias = npt.NDArray[np.float64]
"""The scores of a picture's patches, (rows, columns)."""

COUNT = 6
"""Patches in a list of those that stand out."""


@frozen
class PatchScorer:
    """A metric that scores patches.

    Args:
        name: of the metric.
        metric: has `patch_map`.
        patch: pixels a side of a patch.
        higher_is_better: direction; None where neither is better.
    """

    name: str
    metric: Any
    patch: int
    higher_is_better: bool | None
    _lock: Any = field(factory=threading.Lock, repr=False, eq=False)

    def scores(self, image: Tensor) -> Map:
        """The scores of a picture's patches, (rows, columns).

        Args:
            image: (3, H, W) uint8.

        Raises:
            DataError: the picture cannot be measured, or has no patch.
        """
        with self._lock:  # a metric need not expect several threads
            scores: Map = torch.as_tensor(self.metric.patch_map(image)).detach().cpu().double().numpy()
        if scores.ndim != 2 or not np.isfinite(scores).any():
            raise DataError(f"{self.name} gives no score of a patch of this picture")
        return scores


def make_scorers(scores: Sequence[Score]) -> tuple[list[PatchScorer], list[str]]:
    """The metrics among scores that score patches, made again from their settings.

    Args:
        scores: one a metric.

    Returns:
        The metrics, and a sentence for each one of which there are no heat maps; where it should have some, it is also
        a warning.
    """
    scorers, notes = [], []
    for score in scores:
        try:
            metric: Any = metric_of(score, {})
            if not hasattr(metric, "patch_map"):
                notes.append(f"No heat maps of {score.metric}: it does not score patches.")
                continue
            metric.load(torch.device("cpu"))
        except D4KError as error:
            notes.append(f"No heat maps of {score.metric}: {error}")
            warnings.warn(notes[-1], stacklevel=2)
        else:
            scorers.append(PatchScorer(score.metric, metric, int(metric.patch), score.higher_is_better))
    return scorers, notes


def ends(maps: Sequence[Map]) -> tuple[float, float]:
    """The lowest and the highest score of several maps, those that are not finite left out."""
    finite = [scores[np.isfinite(scores)] for scores in maps]
    return float(min(part.min() for part in finite)), float(max(part.max() for part in finite))


def colour(scores: Map, low: float, high: float) -> Image.Image:
    """A map as a picture of one pixel a patch, in the colours of viridis; transparent where there is no score.

    Args:
        scores: (rows, columns).
        low: the score of the first colour, dark violet.
        high: the score of the last colour, yellow.

    Returns:
        In mode RGBA.

    Source of the colours: van der Walt and Smith, "A better default colormap for Matplotlib", SciPy 2015.

    >>> colour(np.array([[0.0, 1.0]]), 0.0, 1.0).getpixel((1, 0))
    (253, 231, 36, 255)
    """
    import matplotlib as mpl

    share = np.clip((scores - low) / (high - low), 0, 1) if high > low else np.where(np.isfinite(scores), 0.5, np.nan)
    pixels = mpl.colormaps["viridis"](np.nan_to_num(share), bytes=True)
    pixels[..., 3] = np.where(np.isfinite(scores), 255, 0)
    return Image.fromarray(pixels)


def extremes(scores: Map, patch: int, higher_is_better: bool | None) -> PatchesData:
    """The patches that stand out most, at most six in a list, none of them beside another of its list.

    Args:
        scores: (rows, columns).
        patch: pixels a side of a patch.
        higher_is_better: direction; where it is None the highest scores count as the best.
    """
    sign = -1.0 if higher_is_better is False else 1.0
    return PatchesData(_lowest(sign * scores, scores, patch), _lowest(-sign * scores, scores, patch))


def _lowest(order: Map, scores: Map, patch: int) -> tuple[PatchData, ...]:
    """Patches from the lowest of `order` upwards that do not touch each other."""
    left = np.where(np.isfinite(order), order, np.inf)
    found: list[PatchData] = []
    while len(found) < COUNT and np.isfinite(left).any():
        row, column = np.unravel_index(int(left.argmin()), left.shape)
        found.append(PatchData(int(column) * patch, int(row) * patch, patch, float(scores[row, column])))
        left[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = np.inf
    return tuple(found)
