"""Scores, differences, histograms and licences, as the page is given them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from d4k.evaluation.difference import Comparison
from d4k.evaluation.result import Evaluation
from d4k.protocols import Score
from d4k.report.data import ComparisonData, FaultData, HistogramData, LicenceData, MetricData, ScoreData, SetData
from d4k.report.patches import PatchScorer
from d4k.report.sources import Source, slugs

__all__ = ["comparisons", "faults", "first_scores", "histograms", "licences", "metrics", "scores", "sets"]

UNKNOWN = "unknown"
BINS = 5, 40
"""Of a histogram, at least and at most."""


def sets(sources: Sequence[Source], photographs: Source | None) -> list[SetData]:
    """The columns.

    Args:
        sources: all of them, the photographs among them.
        photographs: their column.
    """
    ids = slugs([source.name for source in sources])
    return [
        SetData(
            slug,
            source.name,
            {key: _text(value) for key, value in _about(source).items()},
            ", ".join(dict.fromkeys(text for _, text in _licences(_about(source)))) or UNKNOWN,
            source is photographs,
        )
        for slug, source in zip(ids, sources, strict=True)
    ]


def _about(source: Source) -> Mapping[str, Any]:
    return {} if source.evaluation is None else source.evaluation.about


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _licences(about: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """What is licensed, such as "model", and its licence."""
    for key, value in about.items():
        if key.lower() in ("licence", "license", "licences", "licenses") and not isinstance(value, Mapping):
            yield prefix, _text(value)
        elif isinstance(value, Mapping):
            yield from _licences(value, f"{prefix} {key}".strip())


def licences(sources: Sequence[Source], viewer: str, version: str) -> list[LicenceData]:
    """The licences of what the report shows and is made with.

    Args:
        sources: all columns.
        viewer: text of OpenSeadragon's licence.
        version: of OpenSeadragon.
    """
    own = "Apache License 2.0, http://www.apache.org/licenses/LICENSE-2.0"
    found = [LicenceData("This page, d4k", own), LicenceData(f"OpenSeadragon {version}, the viewer (BSD)", viewer)]
    for source in sources:
        known = list(_licences(_about(source))) or [("", UNKNOWN)]
        found += [LicenceData(f"{source.name}: {what}" if what else source.name, text) for what, text in known]
    return found


def first_scores(evaluations: Sequence[Evaluation]) -> dict[str, Score]:
    """The metrics of several systems by name, each with the first score that it has."""
    found: dict[str, Score] = {}
    for evaluation in evaluations:
        for score in evaluation.scores:
            found.setdefault(score.metric, score)
    return found


def metrics(evaluations: Sequence[Evaluation], scorers: Sequence[PatchScorer]) -> list[MetricData]:
    """The metrics of several systems.

    Args:
        evaluations: of the systems.
        scorers: those of the metrics that have heat maps.
    """
    patches = {scorer.name: scorer.patch for scorer in scorers}
    of_pictures = {name for evaluation in evaluations for picture in evaluation.pictures for name in picture.values}
    remarks: dict[str, dict[str, None]] = {}
    for score in (score for evaluation in evaluations for score in evaluation.scores):
        remarks.setdefault(score.metric, {}).update(dict.fromkeys(score.remarks))
    return [
        MetricData(
            name,
            score.unit,
            score.higher_is_better,
            score.settings,
            tuple(remarks[name]),
            name not in of_pictures,
            patches.get(name),
        )
        for name, score in first_scores(evaluations).items()
    ]


def scores(sources: Sequence[Source], names: Sequence[str]) -> list[tuple[ScoreData | None, ...]]:
    """The figures of each column, one a metric.

    Args:
        sources: all columns.
        names: of the metrics.
    """
    tables = [
        {score.metric: score for score in (source.evaluation.scores if source.evaluation else ())} for source in sources
    ]
    return [tuple(_score(table[name]) if name in table else None for name in names) for table in tables]


def _score(score: Score) -> ScoreData:
    return ScoreData(
        score.value,
        score.interval,
        score.count,
        score.references,
        score.details,
        score.detail_intervals,
    )


def comparisons(sources: Sequence[Source], comparison: Comparison | None) -> list[ComparisonData]:
    """The differences of every two columns that were measured.

    Args:
        sources: all columns.
        comparison: of those that were measured; None where there is none.
    """
    places = {source.name: number for number, source in enumerate(sources)}
    return [
        ComparisonData(
            found.metric,
            places[found.a],
            places[found.b],
            found.difference,
            found.interval,
            found.p_value,
            found.wins,
            found.losses,
            found.ties,
            found.count,
            found.real,
            found.p_adjusted,
        )
        for found in (() if comparison is None else comparison.differences)
    ]


def faults(sources: Sequence[Source]) -> list[FaultData]:
    """What was wrong with files, of all columns."""
    return [
        FaultData(number, fault.file, fault.kind, fault.reason, fault.left_out)
        for number, source in enumerate(sources)
        for fault in (source.evaluation.faults if source.evaluation else ())
    ]


def histograms(sources: Sequence[Source], names: Sequence[str]) -> dict[str, HistogramData]:
    """How the values of pictures are spread, by metric; without metrics that measure sets only.

    Args:
        sources: all columns.
        names: of the metrics.
    """
    found = {}
    for name in names:
        columns = [
            [p.values[name] for p in source.pictures if name in p.values and math.isfinite(p.values[name])]
            for source in sources
        ]
        most = max(len(column) for column in columns)
        if most:
            bins = min(max(math.ceil(math.sqrt(most)), BINS[0]), BINS[1])
            edges = np.histogram_bin_edges(np.concatenate([np.asarray(column, float) for column in columns]), bins)
            counts = (np.histogram(column, edges)[0].tolist() for column in columns)
            found[name] = HistogramData(tuple(edges.tolist()), tuple(tuple(column) for column in counts))
    return found
