"""Figures of scores and differences, as PNG and PDF, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from d4k.errors import DataError
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.result import Evaluation
from d4k.evaluation.tables import SYMBOLS
from d4k.files import atomic_folder, refuse_used
from d4k.protocols import Score

__all__ = ["COLOURS", "write_figures"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
"""Of systems in their order: the palette of Okabe & Ito, which people with colour-blindness tell apart."""

GREY = "#767676"
NAMES = ("scores", "differences", "histograms")


def write_figures(folder: Path, evaluations: Sequence[Evaluation], comparison: Comparison | None = None) -> list[Path]:
    """Draw scores with their intervals, paired differences, and histograms of the values of single pictures.

    Args:
        folder: to write, whole or not at all: `scores`, `differences` and `histograms`, each as .png and .pdf. Figures
            that were there are replaced; a folder with anything else in it is refused.
        evaluations: of the systems.
        comparison: of the systems; without it no differences are drawn.

    Returns:
        The files.

    Raises:
        DataError: there is no score to draw.
        OutputError: the folder cannot be written, or holds something else.
    """
    if not any(evaluation.scores for evaluation in evaluations):
        raise DataError("there is no score to draw")
    refuse_used(folder, [f"{name}.{ending}" for name in NAMES for ending in ("png", "pdf")])
    drawings: dict[str, Callable[[], Any]] = {"scores": lambda: _scores(evaluations)}
    if comparison is not None and comparison.differences:
        drawings["differences"] = lambda: _differences(comparison)
    if any(picture.values for evaluation in evaluations for picture in evaluation.pictures):
        drawings["histograms"] = lambda: _histograms(evaluations)
    with atomic_folder(folder) as temporary:
        for name, draw in drawings.items():
            drawn = draw()
            drawn.savefig(temporary / f"{name}.png", dpi=150)
            drawn.savefig(temporary / f"{name}.pdf")
    return [folder / f"{name}.{ending}" for name in drawings for ending in ("png", "pdf")]


def _panels(count: int, height: float) -> tuple[Any, list[Any]]:
    """A figure of `count` panels, three a line, and its panels. No pyplot: nothing is shared between threads."""
    from matplotlib.figure import Figure

    columns = min(3, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(4.2 * columns, height * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
        panel.locator_params(axis="x", nbins=5)
    return figure, panels


def _by_metric(evaluations: Sequence[Evaluation]) -> dict[str, dict[int, Score]]:
    """Scores by metric, and by the number of the system."""
    found: dict[str, dict[int, Score]] = {}
    for number, evaluation in enumerate(evaluations):
        for score in evaluation.scores:
            found.setdefault(score.metric, {})[number] = score
    return found


def _scores(evaluations: Sequence[Evaluation]) -> Any:
    table = _by_metric(evaluations)
    names = [_short(evaluation.name) for evaluation in evaluations]
    figure, panels = _panels(len(table), 1.1 + 0.35 * len(names))
    for panel, (metric, scores) in zip(panels, table.items(), strict=False):
        _title(panel, metric, next(iter(scores.values())))
        for number, score in scores.items():
            _whisker(panel, len(names) - 1 - number, score.value, score.interval, _colour(number))
        _places(panel, names)
    return figure


def _differences(comparison: Comparison) -> Any:
    table: dict[str, list[Difference]] = {}
    for found in comparison.differences:
        table.setdefault(found.metric, []).append(found)
    most = max(map(len, table.values()))
    figure, panels = _panels(len(table), 1.2 + 0.4 * most)
    for panel, (metric, differences) in zip(panels, table.items(), strict=False):
        _title(panel, metric, differences[0])
        panel.axvline(0, color=GREY, linewidth=1, linestyle="--")
        for number, found in enumerate(differences):
            place = len(differences) - 1 - number
            _whisker(panel, place, found.difference, found.interval, COLOURS[0] if found.real else GREY)
        _places(panel, [f"{_short(found.b)} −\n{_short(found.a)}" for found in differences])
        panel.set_xlabel("difference, 95 % interval; blue: excludes 0", fontsize=8)
    return figure


def _histograms(evaluations: Sequence[Evaluation]) -> Any:
    import numpy as np

    values: dict[str, dict[int, list[float]]] = {}
    for number, evaluation in enumerate(evaluations):
        for picture in evaluation.pictures:
            for metric, value in picture.values.items():
                values.setdefault(metric, {}).setdefault(number, []).append(value)
    scores = _by_metric(evaluations)
    figure, panels = _panels(len(values), 2.8)
    for panel, (metric, sets) in zip(panels, values.items(), strict=False):
        _title(panel, metric, next(iter(scores[metric].values())) if metric in scores else None)
        joined = np.concatenate([np.asarray(each, dtype=float) for each in sets.values()])
        finite = joined[np.isfinite(joined)]
        if len(finite):
            edges = np.histogram_bin_edges(finite, bins=min(30, max(5, round(len(finite) ** 0.5))))
            for number, each in sets.items():
                name = _short(evaluations[number].name)
                style = "-" if number < len(COLOURS) else "--"
                panel.hist(
                    each, edges, histtype="step", linewidth=1.8, color=_colour(number), label=name, linestyle=style
                )
        panel.yaxis.get_major_locator().set_params(integer=True)
        panel.set_ylabel("pictures", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))), fontsize=9, frameon=False
    )
    return figure


def _whisker(panel: Any, place: int, value: float, interval: tuple[float, float] | None, colour: str) -> None:
    if interval is not None:
        panel.plot(interval, [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        panel.plot(
            interval, [place, place], color=colour, linestyle="none", marker="|", markersize=9, markeredgewidth=2
        )
    panel.plot([value], [place], color=colour, marker="o", markersize=6)


def _places(panel: Any, names: Sequence[str]) -> None:
    panel.set_yticks(range(len(names)), list(names)[::-1])
    panel.set_ylim(-0.6, len(names) - 0.4)
    panel.grid(axis="x", color="#e0e0e0", linewidth=0.8)
    panel.set_axisbelow(True)


def _title(panel: Any, metric: str, of: Score | Difference | None) -> None:
    unit = f" [{of.unit}]" if of is not None and of.unit else ""
    arrow = SYMBOLS[of.higher_is_better] if of is not None else ""
    panel.set_title(_plain(f"{metric}{unit}{arrow}"), fontsize=11, loc="left")


def _short(name: str) -> str:
    """A name that a figure has room for; its end says more than its beginning, as in a path."""
    return _plain(name if len(name) <= 24 else f"…{name[-23:]}")


def _plain(text: str) -> str:
    """Names are anybody's text: a dollar would begin a formula."""
    return text.replace("$", r"\$")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
