"""Figures of scores and differences, as PNG and PDF, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from d4k.errors import DataError
from d4k.evaluation.cells import one_line
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.result import Evaluation
from d4k.evaluation.tables import SYMBOLS
from d4k.files import atomic_folder, refuse_used
from d4k.protocols import Score

__all__ = ["COLOURS", "write_figures"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
"""Of systems in their order: the palette of Okabe & Ito, which people with colour-blindness tell apart."""

GREY = "#767676"
LINE, LINES = 30, 2
"""Letters a line, and lines, that a name has beside a panel."""

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
    if _values(evaluations):
        drawings["histograms"] = lambda: _histograms(evaluations)
    with atomic_folder(folder) as temporary:
        for name, draw in drawings.items():
            drawn = draw()
            drawn.savefig(temporary / f"{name}.png", dpi=150)
            drawn.savefig(temporary / f"{name}.pdf", metadata={"CreationDate": None})  # the same file each time
    return [folder / f"{name}.{ending}" for name in drawings for ending in ("png", "pdf")]


def _panels(count: int, names: Sequence[str], height: float, explained: str) -> tuple[Any, list[Any]]:
    """A figure of `count` panels, three a line, that share their lines of `names`, which stand at the left.

    No pyplot: nothing is shared between threads.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(3, count)
    lines = -(-count // columns)
    size = 2.2 + 3.1 * columns, lines * (0.7 + height * len(names)) + 0.4
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=10)
        panel.locator_params(axis="x", nbins=4)
        panel.grid(axis="x", color="#e0e0e0", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.set_yticks(range(len(names)), list(names)[::-1])
        panel.set_ylim(-0.6, len(names) - 0.4)
    figure.supxlabel(explained, fontsize=10)
    return figure, panels


def _by_metric(evaluations: Sequence[Evaluation]) -> dict[str, dict[int, Score]]:
    """Scores by metric, and by the number of the system."""
    found: dict[str, dict[int, Score]] = {}
    for number, evaluation in enumerate(evaluations):
        for score in evaluation.scores:
            found.setdefault(score.metric, {})[number] = score
    return found


def _values(evaluations: Sequence[Evaluation]) -> dict[str, dict[int, list[float]]]:
    """Values of single pictures that are finite, by metric, and by the number of the system."""
    found: dict[str, dict[int, list[float]]] = {}
    for number, evaluation in enumerate(evaluations):
        for picture in evaluation.pictures:
            for metric, value in picture.values.items():
                if math.isfinite(value):
                    found.setdefault(metric, {}).setdefault(number, []).append(value)
    return found


def _scores(evaluations: Sequence[Evaluation]) -> Any:
    table = _by_metric(evaluations)
    names = [label(evaluation.name) for evaluation in evaluations]
    figure, panels = _panels(len(table), names, 0.42, "score with its 95 % interval")
    for panel, (metric, scores) in zip(panels, table.items(), strict=False):
        _title(panel, metric, next(iter(scores.values())))
        for number in range(len(names)):
            score = scores.get(number)
            known = score is not None and math.isfinite(score.value)
            _whisker(panel, len(names) - 1 - number, score if known else None, _colour(number), filled=True)
    return figure


def _differences(comparison: Comparison) -> Any:
    pairs = list(dict.fromkeys((found.a, found.b) for found in comparison.differences))
    metrics = list(dict.fromkeys(found.metric for found in comparison.differences))
    names = [f"{label(b, 1)}\n− {label(a, 1)}" for a, b in pairs]
    explained = "difference with its 95 % interval; filled and blue: the interval excludes 0"
    figure, panels = _panels(len(metrics), names, 0.46, explained)
    for panel, metric in zip(panels, metrics, strict=False):
        found = {(each.a, each.b): each for each in comparison.differences if each.metric == metric}
        _title(panel, metric, next(iter(found.values())))
        panel.axvline(0, color=GREY, linewidth=1, linestyle="--")
        for number, pair in enumerate(pairs):
            each = found.get(pair)
            real = each is not None and each.real
            known = each is not None and math.isfinite(each.difference)
            _whisker(panel, len(pairs) - 1 - number, each if known else None, COLOURS[0] if real else GREY, filled=real)
    return figure


def _histograms(evaluations: Sequence[Evaluation]) -> Any:
    import numpy as np

    table, scores = _values(evaluations), _by_metric(evaluations)
    names = [label(evaluation.name) for evaluation in evaluations]
    explained = "how many pictures have which value; heights of one metric are to one scale"
    figure, panels = _panels(len(table), names, 0.6, explained)
    for panel, (metric, sets) in zip(panels, table.items(), strict=False):
        _title(panel, metric, next(iter(scores[metric].values())) if metric in scores else None)
        most = max(len(values) for values in sets.values())
        edges = np.histogram_bin_edges(np.concatenate(list(sets.values())), bins=min(30, max(5, round(most**0.5 * 2))))
        counts = {number: np.histogram(values, edges)[0] for number, values in sets.items()}
        highest = max(int(count.max()) for count in counts.values())
        for number in range(len(names)):
            place = len(names) - 1 - number - 0.4
            panel.axhline(place, color="#b0b0b0", linewidth=0.8)
            if number in counts:
                heights = place + 0.85 * counts[number] / highest
                panel.stairs(heights, edges, baseline=place, fill=True, color=_colour(number))
            else:
                _absent(panel, place + 0.4)
    return figure


def _whisker(panel: Any, place: int, of: Score | Difference | None, colour: str, *, filled: bool) -> None:
    if of is None:
        return _absent(panel, place)
    value = of.value if isinstance(of, Score) else of.difference
    if of.interval is not None:
        more = {"marker": "|", "markersize": 9, "markeredgewidth": 2, "solid_capstyle": "butt"}
        panel.plot(of.interval, [place, place], color=colour, linewidth=2, **more)
    panel.plot([value], [place], "o", color=colour, markersize=7, markerfacecolor=colour if filled else "white")
    return None


def _absent(panel: Any, place: float) -> None:
    where = panel.get_yaxis_transform()
    panel.text(0.5, place, "no figure", transform=where, color=GREY, fontsize=9, ha="center", va="center")


def _title(panel: Any, metric: str, of: Score | Difference | None) -> None:
    unit = f" [{of.unit}]" if of is not None and of.unit else ""
    arrow = SYMBOLS[of.higher_is_better] if of is not None else ""
    text = one_line(f"{metric}{unit}")
    panel.set_title(_plain(f"{text if len(text) <= LINE else text[: LINE - 1] + '…'}{arrow}"), fontsize=11, loc="left")


def label(name: str, lines: int = LINES) -> str:
    r"""A name as a figure has room for it: over some lines, and without its middle where it is longer than they are.

    Args:
        name: of a system.
        lines: at most.

    >>> label("stable-diffusion-3.5-large-upscaled")
    'stable-diffusion-3.5-large-\nupscaled'
    """
    text = one_line(name)
    room = LINE * lines
    if len(text) > room:
        text = f"{text[: room // 2 - 1]}…{text[len(text) - room // 2 :]}"
    found: list[str] = []
    while len(text) > LINE:
        # between words, where the rest still has room
        least = max(1, len(text) - LINE * (lines - len(found) - 1))
        cut = max((place + 1 for place in range(least - 1, LINE) if text[place] in " -_/"), default=LINE)
        found.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return _plain("\n".join([*found, text]))


def _plain(text: str) -> str:
    """Names are anybody's text: a dollar would begin a formula."""
    return text.replace("$", r"\$")


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
