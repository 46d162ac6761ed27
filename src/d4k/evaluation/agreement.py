"""Whether two systems were measured alike: what differs is refused by name, or remarked where it may not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import define, field
from torch import Tensor

from d4k.config import shown
from d4k.errors import ConfigError, DataError, UnknownNameError
from d4k.evaluation.result import Evaluation
from d4k.evaluation.torchmetrics import as_metric
from d4k.plugins import create, registry
from d4k.protocols import Metric, Need, Score

__all__ = ["MeanOfRows", "check_alike", "common_metrics", "metric_of", "size_remarks"]

FREE = ("resamples",)
"""Settings of scores that do not change the figure: the intervals are computed anew."""

Both = tuple[Evaluation, Evaluation]


@define
class MeanOfRows:
    """Scores the rows of a metric whose object is not at hand and whose score is a mean over pictures.

    Args:
        unit: of the metric.
        higher_is_better: of the metric.
    """

    unit: str
    higher_is_better: bool | None
    needs: frozenset[Need] = field(default=frozenset({"image"}), init=False)

    def load(self, device: Any) -> None:
        """Nothing is loaded."""

    def observe(self, **inputs: Any) -> Tensor:  # noqa: ARG002
        """Not possible.

        Raises:
            DataError: always.
        """
        raise DataError("what a stored row is made of can only be measured by its own metric")

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:  # noqa: ARG002
        """Mean of the first column."""
        return float(rows[:, 0].mean())

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Means of resamples."""
        return weights @ rows[:, 0].double() / weights.sum(1)


def common_metrics(both: Both, remarks: list[str]) -> list[tuple[Score, Score]]:
    """The scores that both systems have, in the order of the first; what only one has is added to `remarks`.

    Raises:
        DataError: they have none in common.
    """
    tables = [{score.metric: score for score in each.scores} for each in both]
    for own, (mine, other) in enumerate((tables, tables[::-1])):
        lone = [name for name in mine if name not in other]
        if lone:
            remarks.append(f"{', '.join(lone)}: measured of {both[own].name}, and not of {both[1 - own].name}.")
    names = [name for name in tables[0] if name in tables[1]]
    if not names:
        measured = "; ".join(f"{each.name}: {', '.join(t) or 'none'}" for each, t in zip(both, tables, strict=True))
        raise DataError(f"{both[0].name} and {both[1].name} have no metric in common ({measured}); measure both alike")
    return [(tables[0][name], tables[1][name]) for name in names]


def check_alike(both: Both, first: Score, second: Score, remarks: list[str]) -> None:
    """Refuse scores of other settings or references; other versions of packages are added to `remarks`.

    Raises:
        ConfigError: a setting differs, or the reference pictures do; the message names it and both values.
    """
    name, (a, b) = first.metric, (each.name for each in both)
    for key in dict.fromkeys([*first.settings, *second.settings]):
        mine, other = (score.settings.get(key) for score in (first, second))
        if key not in FREE and mine != other:
            raise ConfigError(
                f"{name}: {key} is {shown(mine)} in {a} and {shown(other)} in {b}; measure both alike: "
                f"d4k evaluate FOLDER --metric {name}"
                + (f" --metric-option {name}.{key}={mine}" if key in _options(name) else "")
            )
    keys = [sorted(each.references.get(name, ())) for each in both]
    if keys[0] != keys[1]:
        said = f"{len(keys[0])} and {len(keys[1])}" if len(keys[0]) != len(keys[1]) else f"{len(keys[0])} each"
        raise ConfigError(
            f"{name}: {a} and {b} were compared with different sets of reference pictures ({said}); measure both "
            f"against one set: d4k evaluate FOLDER --metric {name} --references PHOTOGRAPHS"
        )
    for package in dict.fromkeys([*first.versions, *second.versions]):
        mine, other = (score.versions.get(package, "none") for score in (first, second))
        if mine != other:
            remarks.append(f"{name}: {package} is {mine} in {a} and {other} in {b}; small differences may be theirs.")


def metric_of(score: Score, given: Mapping[str, Metric]) -> Metric:
    """The metric that made a score, from `given` or by its registered name and its settings.

    Raises:
        ConfigError: nobody registered it, and it is not among `given`.
    """
    if score.metric in given:
        return given[score.metric]
    if score.settings.get("figure") == "mean over pictures":  # a metric of torchmetrics, whose object is not needed
        return MeanOfRows(score.unit, score.higher_is_better)
    if "figure" in score.settings:
        return as_metric(create("metric", score.metric))
    known = _options(score.metric)  # settings also say what is no option, such as the digest of weights
    options = {key: _option(value) for key, value in score.settings.items() if key in known and value is not None}
    try:
        made: Metric = create("metric", score.metric, **options)
    except UnknownNameError as error:
        raise ConfigError(
            f"{error} Install its plugin, or give the metric itself: compare(..., metrics={{'{score.metric}': ...}})"
        ) from error
    return made


def size_remarks(both: Both, pairs: Sequence[tuple[int, int]]) -> list[str]:
    """A sentence where pictures that belong together have other sizes; empty where all are alike."""
    found = [(both[0].pictures[i], both[1].pictures[j]) for i, j in pairs]
    other = [(one, two) for one, two in found if (one.width, one.height) != (two.width, two.height)]
    if not other:
        return []
    one, two = other[0]
    return [
        f"In {len(other)} of {len(pairs)} pairs the pictures of {both[0].name} and {both[1].name} have other sizes, "
        f"such as {one.width}x{one.height} and {two.width}x{two.height} ({one.file}): detail depends on the size."
    ]


def _options(name: str) -> set[str]:
    """The options of a registered metric; empty where nobody registered it."""
    if name not in registry().names("metric"):
        return set()
    cls = registry().get("metric", name).load()
    return {option.alias for option in attrs.fields(cls) if option.init} if attrs.has(cls) else set()


def _option(value: Any) -> Any:
    """A setting as an option: JSON knows no tuples."""
    return tuple(value) if isinstance(value, list) else value
