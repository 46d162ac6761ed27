"""Scores with intervals: the figure of a set of pictures, and how far another set of as many would move it.

An interval is a bootstrap over pictures (Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13):
as many pictures are drawn from the set, with replacement, and scored anew, a thousand times. All rows of a picture are
drawn together, since the patches of a picture are no independent evidence.

Some statistics are biased when they are resampled: in a resample about 37 % of the pictures are missing and others are
there twice, so that a Frechet distance is always larger than that of the set itself, and the plain percentiles may not
even hold the score. Therefore the resamples are moved so that their mean is the score (the bootstrap estimate of the
bias is their mean less the score: Davison & Hinkley, "Bootstrap Methods and their Application", 1997, sections 2.1 and
5.2). For a mean over pictures this changes nothing. The interval then runs between percentiles of the moved resamples:
2.5 and 97.5 where pictures are many, and as much further out as Student's t is beyond a normal distribution where they
are few (`interval_of`). What is left is how much the score varies between sets of that many pictures. A bias that the
score itself has, such as that of FID with few pictures, is left in it: the interval is no correction. With fewer
pictures than dimensions the interval of a Frechet distance is wider than it need be (by about a half in a simulation of
40 pictures in 60 dimensions), and so errs on the side of caution.

The references of a metric of sets are held fixed: they are the same pictures for all systems that are compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, TypeAlias

import attrs
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from d4k.errors import ConfigError, DataError
from d4k.plugins import registry
from d4k.protocols import Metric, Score
from d4k.seeds import numbered_seed

__all__ = ["LEVEL", "interval_of", "resampled_figures", "score_figures", "score_rows", "settings_of", "version_of"]

LEVEL = 0.95
"""Of every interval."""

BLOCK = 2**22
"""Weights that are held at once, 32 MiB of float64: so many rows times resamples are scored together."""

Floats: TypeAlias = npt.NDArray[np.float64]


def score_rows(
    name: str,
    metric: Metric,
    rows: Sequence[Tensor],
    references: Sequence[Tensor] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Score:
    """The score of a set of pictures, with its 95 % bootstrap interval over pictures.

    A metric whose rows are empty, (K, 0), has one figure of the whole set and no interval.

    The same seed draws the same pictures, for every metric. Details have intervals too, but those of a metric of sets
    that weights its rows (`weighted_scores`), whose details would have to be scored a thousand times.

    Args:
        name: what the score is called, such as the registered name of the metric.
        metric: that observed the rows.
        rows: one (K, D) tensor a picture.
        references: likewise of the set of reference pictures, for a metric that needs one.
        resamples: how often the set is drawn anew; 0 leaves the intervals out.
        seed: of the draws.

    Raises:
        ConfigError: `resamples` is negative, or the metric needs references and there are none.
        DataError: there are no rows, or too few for the metric.

    Source: percentile bootstrap, Efron & Tibshirani 1993, chapter 13; moved by its bias, Davison & Hinkley 1997;
    expanded, Hesterberg 2015.

    >>> class Mean:
    ...     needs, higher_is_better, unit = frozenset({"image"}), True, "levels"
    ...     def score(self, rows, references=None):
    ...         return float(rows.mean())
    >>> score = score_rows("mean", Mean(), [torch.tensor([[float(level)]]) for level in range(10)])
    >>> score.value, score.interval[0] < 4.5 < score.interval[1]
    (4.5, True)
    """
    if resamples < 0:
        raise ConfigError(f"resamples must be a whole number of at least 0, got {resamples}")
    _check_references(name, metric, references)
    figures = score_figures(name, metric, rows, references)
    remarks = list(_remarks(metric, len(rows), len(references or ())))
    intervals: dict[str, tuple[float, float]] = {}
    if len(rows) < 2:
        remarks.append("No interval: it takes two pictures or more.")
    elif resamples and rows[0].shape[1]:  # a figure of the whole set alone has no rows; its remarks say so
        drawn = resampled_figures(name, metric, rows, references, resamples=resamples, seed=seed)
        intervals, unknown = _intervals(drawn, figures, len(rows))
        remarks += unknown
    if name in intervals:
        intervals[name] = _within(intervals[name], metric)
    return Score(
        metric=name,
        value=figures.pop(name),
        unit=metric.unit,
        count=len(rows),
        higher_is_better=metric.higher_is_better,
        settings={**settings_of(metric), "resamples": resamples},
        details=figures,
        interval=intervals.pop(name, None),
        detail_intervals=intervals,
        references=len(references or ()),
        remarks=tuple(remarks),
        versions=_versions(metric),
    )


def _intervals(
    drawn: Mapping[str, Floats], figures: Mapping[str, float], count: int
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """The intervals of figures that are finite in every resample, and a sentence for each that is not."""
    steady = {key: values for key, values in drawn.items() if np.isfinite(values).all()}
    unknown = [f"No interval of {key}: it is not finite in every resample." for key in drawn if key not in steady]
    finite = {key: values for key, values in steady.items() if math.isfinite(figures[key])}
    return {key: interval_of(values, figures[key], count) for key, values in finite.items()}, unknown


def score_figures(
    name: str, metric: Metric, rows: Sequence[Tensor], references: Sequence[Tensor] | None = None
) -> dict[str, float]:
    """All figures of a set of pictures by name: the score under `name` first, then the details.

    Raises:
        DataError: there are no rows, or too few for the metric.
    """
    if not rows:
        raise DataError(f"{name}: no picture was measured; there must be at least one")
    return _figures(name, metric, torch.cat(list(rows)), _joined(references))


def resampled_figures(
    name: str,
    metric: Metric,
    rows: Sequence[Tensor],
    references: Sequence[Tensor] | None = None,
    *,
    resamples: int,
    seed: int,
    groups: Sequence[int] | None = None,
    details: bool = True,
) -> dict[str, Floats]:
    """The figures of resamples of a set of pictures, by name, each (resamples,).

    Two sets of as many pictures (or groups) are drawn alike with the same seed: picture n of the one and picture n of
    the other are always drawn together, which is what a paired difference needs.

    Args:
        name: of the score.
        metric: that observed the rows.
        rows: one (K, D) tensor a picture.
        references: likewise of the reference pictures, which are not resampled.
        resamples: how many.
        seed: of the draws.
        groups: of each picture, a number that it shares with those it is drawn with; by default each is drawn alone.
        details: whether to draw them, too.
    """
    members = np.arange(len(rows)) if groups is None else np.unique(groups, return_inverse=True)[1]
    owner = np.repeat(members, [len(row) for row in rows])  # of each row, what it is drawn with
    table, against = torch.cat(list(rows)), _joined(references)
    blocks = []
    for counts in _drawn(int(members.max()) + 1, resamples, seed, max(1, BLOCK // max(1, len(table)))):
        blocks.append(_block(name, metric, table, against, counts[:, owner], details))
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def interval_of(values: Floats, centre: float, drawn: int) -> tuple[float, float]:
    """The 95 % interval of resamples, moved so that their mean is `centre`.

    The plain percentiles of few pictures are too narrow, as a normal distribution is in place of Student's t: of 20
    pictures they hold the truth in 93 % and not 95 % of all sets. So they are taken as much further out.

    Args:
        values: of the resamples.
        centre: the figure of the set itself.
        drawn: how many pictures or groups a resample draws, two or more.

    Source: the expanded percentile interval, Hesterberg, "What teachers should know about the bootstrap", The American
    Statistician 69(4), 2015.

    >>> low, high = interval_of(np.arange(101.0), 0.0, drawn=1_000_000)
    >>> round(low, 2), round(high, 2)
    (-47.5, 47.5)
    """
    tail = 100 * tail_of(drawn)
    low, high = np.percentile(values - values.mean() + centre, [tail, 100 - tail])
    return float(low), float(high)


def tail_of(drawn: int) -> float:
    """The share of resamples that lie beyond either end of an interval; 0.025 where many pictures are drawn.

    >>> round(tail_of(20), 4)
    0.0159
    """
    from scipy.stats import norm, t

    reach = t.ppf((1 + LEVEL) / 2, drawn - 1) * math.sqrt(drawn / (drawn - 1))
    return float(norm.sf(reach))


def _within(interval: tuple[float, float], metric: Metric) -> tuple[float, float]:
    """An interval without what the metric cannot be, such as a share above 1."""
    least, most = getattr(metric, "bounds", (-math.inf, math.inf))
    return max(interval[0], least), min(interval[1], most)


def _drawn(size: int, resamples: int, seed: int, most: int) -> Iterator[Floats]:
    """How often each of `size` is drawn in each resample, (R, size), at most `most` resamples at once."""
    for first in range(0, resamples, most):
        block = np.empty((min(most, resamples - first), size))
        for place, counts in enumerate(block):
            generator = np.random.default_rng(numbered_seed(seed, "bootstrap", first + place))
            counts[:] = np.bincount(generator.integers(0, size, size), minlength=size)
        yield block


def _block(
    name: str, metric: Metric, table: Tensor, against: Tensor | None, weights: Floats, details: bool
) -> dict[str, Floats]:
    """The figures of some resamples: weighted at once where the metric can, and scored one by one otherwise."""
    weighted = getattr(metric, "weighted_scores", None)
    found: dict[str, Floats] = {}
    if weighted is not None:
        scores = weighted(table, torch.from_numpy(weights), **_against(against))
        found[name] = scores.detach().cpu().double().numpy()
        if not details or against is not None or not isinstance(metric.score(table, **_against(against)), Mapping):
            return found
    rows = np.arange(len(table))
    each = [
        _figures(name, metric, table[torch.from_numpy(np.repeat(rows, counts.astype(np.int64)))], against)
        for counts in weights
    ]
    return {key: np.array([figures[key] for figures in each]) for key in each[0]} | found


def _figures(name: str, metric: Metric, table: Tensor, against: Tensor | None) -> dict[str, float]:
    result = metric.score(table, **_against(against))
    if not isinstance(result, Mapping):
        return {name: float(result)}
    first, *rest = result.items()
    return {name: float(first[1])} | {key: float(value) for key, value in rest}


def _against(references: Tensor | None) -> dict[str, Tensor]:
    return {} if references is None else {"references": references}


def _joined(references: Sequence[Tensor] | None) -> Tensor | None:
    return torch.cat(list(references)) if references else None


def _check_references(name: str, metric: Metric, references: Sequence[Tensor] | None) -> None:
    if "references" in metric.needs and not references:
        raise ConfigError(f"{name} compares with a set of reference pictures, and there is none: pass --references")


def _remarks(metric: Metric, count: int, references: int) -> Sequence[str]:
    remarks = getattr(metric, "remarks", None)
    return () if remarks is None else tuple(remarks(count, references))


def settings_of(metric: Metric) -> dict[str, Any]:
    """What a score says of its metric: its `settings` where it has them, and otherwise its options."""
    cls: Any = type(metric)
    if hasattr(metric, "settings"):
        return dict(metric.settings)
    if not attrs.has(cls):
        return {}
    return {option.alias: getattr(metric, option.name) for option in attrs.fields(cls) if option.init}


def _versions(metric: Metric) -> dict[str, str]:
    """Of d4k, torch, the distribution that the metric is from, and what the metric names in `packages`."""
    from d4k import __version__

    found = {"d4k": __version__, "torch": metadata.version("torch")}
    home = type(metric).__module__.partition(".")[0]
    for entries in registry().entries.values():
        for entry in entries:
            if entry.kind == "metric" and entry.target.partition(":")[0].partition(".")[0] == home:
                found.setdefault(entry.plugin, entry.version)
    for package in getattr(metric, "packages", ()):
        found[package] = version_of(package)
    return found


def version_of(package: str) -> str:
    """The version of an installed distribution; "?" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "?"
