"""Systems against each other, picture by picture: what differs, by how much, and whether it is more than chance.

Both systems are scored on the pictures that belong together (`pair_pictures`), and the difference of the scores has a
95 % bootstrap interval over prompts: in each resample the same prompts are drawn for both. So what makes a prompt easy
or hard for both cancels, and the interval of the difference is much narrower than those of the two scores suggest.

The percentiles of such an interval are expanded where prompts are few (`interval_of`): of differences that are none,
5 % are called real.

Source: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from attrs import define, evolve, field, frozen

from d4k.errors import ConfigError, DataError
from d4k.evaluation.agreement import check_alike, common_metrics, metric_of, size_remarks
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.pairs import pair_pictures, paired_by_prompt
from d4k.evaluation.result import Evaluation, Picture
from d4k.evaluation.significance import holm, signed_rank_test
from d4k.evaluation.statistics import interval_of, resampled_figures, score_figures
from d4k.evaluation.systems import System, read_systems
from d4k.protocols import Metric, Score

__all__ = ["compare"]

LEAST = 40
"""Draws of the bootstrap: an end of a 95 % interval lies beyond 2.5 % of them, which of fewer is less than one."""

Floats: TypeAlias = npt.NDArray[np.float64]


def compare(
    systems: Sequence[Path | System],
    *,
    metrics: Mapping[str, Metric] | None = None,
    all_pairs: bool = False,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare systems by every metric that was measured of them.

    Args:
        systems: two or more folders of evaluations, or folders of benchmarks, which stand for all of their models.
        metrics: objects of the metrics whose names nobody registered, by name of the score.
        all_pairs: compare each with each, not only the first with every other.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ConfigError: the systems were measured with different settings or references, or `resamples` is below 40.
        DataError: there are fewer than two, two have no picture in common, or one cannot be read.
    """
    if resamples < LEAST:
        raise ConfigError(f"resamples must be a whole number of at least {LEAST}, got {resamples}")
    read = [system for system in systems if isinstance(system, System)]
    if len(read) != len(systems):
        read = read_systems([system.folder if isinstance(system, System) else system for system in systems])
    if len(read) < 2:
        raise DataError(f"it takes two systems to compare, got {len(read)}; name another folder")
    chosen = list(combinations(read, 2)) if all_pairs else [(read[0], other) for other in read[1:]]
    known: dict[Hashable, Side] = {}
    duels = [Duel(a, b, metrics or {}, resamples, seed, known) for a, b in chosen]
    for duel in duels:  # all refusals before any work
        duel.check()
    found = [difference for duel in duels for difference in duel.differences()]
    remarks = [remark for duel in duels for remark in duel.remarks]
    tested = [number for number, difference in enumerate(found) if difference.p_value is not None]
    adjusted = holm([found[number].p_value or 0.0 for number in tested])
    for number, p in zip(tested, adjusted, strict=True):
        found[number] = evolve(found[number], p_adjusted=p)
    if len(found) > 1:
        remarks.append(
            f"{len(found)} differences are shown: where nothing differs, one interval in 20 excludes 0 by chance. "
            "The p adjusted after Holm accounts for the number of tests."
        )
    return Comparison(tuple(s.name for s in read), tuple(found), tuple(dict.fromkeys(remarks)), resamples, seed)


@frozen(eq=False)
class Side:
    """One system in a duel: its score on the pairs, the scores of resamples, and those of single pictures."""

    value: float
    drawn: Floats | None
    singles: Floats | None


@define
class Duel:
    """Two systems, their pairs, and what there is to remark. Duels share what is `known` of a system."""

    a: System
    b: System
    metrics: Mapping[str, Metric]
    resamples: int
    seed: int
    known: dict[Hashable, Side]
    pairs: list[tuple[int, int]] = field(init=False, factory=list)
    groups: list[int] = field(init=False, factory=list)
    remarks: list[str] = field(init=False, factory=list)

    def check(self) -> None:
        """Pair the pictures, and refuse what cannot be compared."""
        both = self.a.evaluation, self.b.evaluation
        self.pairs, lone = _paired(both)
        by_prompt = paired_by_prompt(both)
        if not self.pairs:
            raise DataError(
                f"{self.a.name} and {self.b.name} have no picture in common: they were paired by "
                f"{'prompt' if by_prompt else 'id'}; measure pictures of the same prompts, or files of the same names"
            )
        numbers: dict[Hashable, int] = {}
        for first, _ in self.pairs:  # pictures of one prompt are drawn together
            numbers.setdefault(both[0].pictures[first].prompt if by_prompt else first, len(numbers))
            self.groups.append(numbers[both[0].pictures[first].prompt if by_prompt else first])
        self.remarks += [*lone, *size_remarks(both, self.pairs)]
        for first_score, second_score in common_metrics(both, self.remarks):
            check_alike(both, first_score, second_score, self.remarks)
            metric_of(first_score, self.metrics)
        if len(numbers) < 2:
            self.remarks.append(f"{self.b.name} - {self.a.name}: no interval, which takes two prompts or more.")

    def differences(self) -> list[Difference]:
        """One a metric, in the order of the first system."""
        both = self.a.evaluation, self.b.evaluation
        return [self._difference(first) for first, _ in common_metrics(both, [])]

    def _difference(self, score: Score) -> Difference:
        pairs, groups = self._measured(score.metric)
        a = self._side(self.a, score, tuple(i for i, _ in pairs), groups)
        b = self._side(self.b, score, tuple(j for _, j in pairs), groups)
        difference = b.value - a.value
        interval = None
        if a.drawn is not None and b.drawn is not None and np.isfinite(b.drawn - a.drawn).all():
            interval = interval_of(b.drawn - a.drawn, difference, len(set(groups)))
        p_value, counts = None, (0, 0, 0)
        if a.singles is not None and b.singles is not None:
            singles = b.singles - a.singles
            p_value = signed_rank_test(_group_means(singles, groups))
            counts = _counted(singles, score.higher_is_better)
        return Difference(
            score.metric,
            self.a.name,
            self.b.name,
            a.value,
            b.value,
            difference,
            interval,
            p_value,
            *counts,
            count=len(pairs),
            real=interval is not None and not interval[0] <= 0 <= interval[1],
            unit=score.unit,
            higher_is_better=score.higher_is_better,
        )

    def _measured(self, metric: str) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
        """The pairs both of whose pictures the metric could measure, and of each pair its group."""
        a, b = self.a.evaluation.pictures, self.b.evaluation.pictures
        kept = [place for place, (i, j) in enumerate(self.pairs) if metric in a[i].keys and metric in b[j].keys]
        if not kept:
            raise DataError(f"{metric} could measure no pair of {self.a.name} and {self.b.name}")
        if len(kept) < len(self.pairs):
            self.remarks.append(
                f"{metric}: {len(self.pairs) - len(kept)} of {len(self.pairs)} pairs of {self.a.name} and "
                f"{self.b.name} do not count, since it could not measure both pictures."
            )
        return [self.pairs[place] for place in kept], tuple(self.groups[place] for place in kept)

    def _side(self, system: System, score: Score, places: tuple[int, ...], groups: tuple[int, ...]) -> Side:
        key = (system.folder, score.metric, places, groups)
        if key not in self.known:
            self.known[key] = self._scored(system, score, places, groups)
        return self.known[key]

    def _scored(self, system: System, score: Score, places: Sequence[int], groups: Sequence[int]) -> Side:
        name, metric, stored = score.metric, metric_of(score, self.metrics), system.rows(score.metric)
        rows = [stored[place] for place in places]
        of_sets = "references" in metric.needs
        references = system.references(name) if of_sets else None
        value = score_figures(name, metric, rows, references)[name]
        if not rows[0].shape[1]:  # a figure of the whole set alone has empty rows
            return Side(value, None, None)
        drawn = singles = None
        if len(set(groups)) > 1:
            more = {"resamples": self.resamples, "seed": self.seed}
            drawn = resampled_figures(name, metric, rows, references, **more, groups=groups, details=False)[name]
        if not of_sets:
            singles = np.array([score_figures(name, metric, [row])[name] for row in rows])
        return Side(value, drawn, singles)


def _paired(both: tuple[Evaluation, Evaluation]) -> tuple[list[tuple[int, int]], list[str]]:
    """Places of the pictures that belong together, and a sentence for each system that has others."""
    places = [{id(picture): place for place, picture in enumerate(each.pictures)} for each in both]
    pairs: list[tuple[int, int]] = []
    lone: tuple[list[Picture], list[Picture]] = ([], [])
    for first, second in pair_pictures(both):
        if first is not None and second is not None:
            pairs.append((places[0][id(first)], places[1][id(second)]))
        elif first is not None:
            lone[0].append(first)
        elif second is not None:
            lone[1].append(second)
    remarks = []
    for side, pictures in enumerate(lone):
        if pictures:
            named = ", ".join(picture.file for picture in pictures[:3]) + (", ..." if len(pictures) > 3 else "")
            remarks.append(
                f"{len(pictures)} of {len(both[side].pictures)} pictures of {both[side].name} have no partner in "
                f"{both[1 - side].name} and do not count here: {named}."
            )
    return pairs, remarks


def _group_means(differences: Floats, groups: Sequence[int]) -> Floats:
    """One difference a prompt: pictures of one prompt are no independent evidence."""
    members = np.unique(groups, return_inverse=True)[1]
    means: Floats = np.bincount(members, differences) / np.bincount(members)
    return means


def _counted(differences: Floats, higher_is_better: bool | None) -> tuple[int, int, int]:
    if higher_is_better is None:
        return 0, 0, 0
    better = differences if higher_is_better else -differences
    return int((better > 0).sum()), int((better < 0).sum()), int((better == 0).sum())
