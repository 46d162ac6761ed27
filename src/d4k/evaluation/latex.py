r"""Scores as a LaTeX table for a paper, in the style of booktabs: it needs `\usepackage{booktabs}`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from d4k.evaluation.cells import MISSING, figures, one_line
from d4k.evaluation.difference import Comparison
from d4k.evaluation.tables import ARROWS, columns, counts
from d4k.protocols import Score

__all__ = ["escape", "latex_table"]

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a line it would be an option of the line break before it
    "*": "{*}",  # likewise
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
SYMBOLS = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}


def latex_table(rows: Mapping[str, Sequence[Score]], comparison: Comparison | None = None) -> str:
    """A table of scores, a row a system and a column a metric, with a caption that explains it.

    The best value of a column is bold where its difference from the next best is real; without a comparison, or where
    that pair was not compared, nothing is bold.

    Args:
        rows: scores by name of the system.
        comparison: of the same systems, each with each.
    """
    first = columns(rows)
    systems = {name: {score.metric: score for score in scores} for name, scores in rows.items()}
    bold = {metric: _best(metric, systems, comparison) for metric in first}
    cells = [[escape(name) for name in rows]]
    for metric in first:
        own = {name: table.get(metric) for name, table in systems.items()}
        shown = figures(
            [None if score is None else score.value for score in own.values()],
            [None if score is None else score.interval for score in own.values()],
        )
        cells.append([_cell(each, name == bold[metric]) for name, each in zip(own, shown, strict=True)])
    cells.append([counts(scores) for scores in rows.values()])
    heads = ["", *map(_head, first.values()), "$n$"]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_caption(rows, any(bold.values()))}}}",
            rf"\begin{{tabular}}{{l{'c' * len(first)}r}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *(" & ".join(line) + r" \\" for line in zip(*cells, strict=True)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def escape(text: str) -> str:
    r"""Text as LaTeX has it, on one line.

    >>> print(escape("SD3_F16 & 50 %"))
    SD3\_F16 \& 50 \%
    """
    escaped = "".join(SPECIAL.get(sign, sign) for sign in one_line(text))
    return re.sub("(?<=-)-", "{}-", escaped)  # two hyphens would be a dash


def _head(score: Score) -> str:
    unit = f" [{escape(score.unit)}]" if score.unit else ""
    return f"{escape(score.metric)}{unit}{SYMBOLS[score.higher_is_better]}"


def _cell(shown: str, bold: bool) -> str:
    if shown == MISSING:
        return "--"
    value, _, interval = shown.replace("-", "$-$").replace("∞", r"$\infty$").partition(" ")
    value = rf"\textbf{{{value}}}" if bold else value
    return f"{value} {{\\scriptsize {interval}}}" if interval else value


def _caption(rows: Mapping[str, Sequence[Score]], bold: bool) -> str:
    scores = [score for system in rows.values() for score in system]
    directions = dict.fromkeys(score.higher_is_better for score in scores)
    said = [f"{SYMBOLS[way].strip()} {ARROWS[way]}" for way in (True, False) if way in directions]
    numbers = list(dict.fromkeys(str(score.count) for score in scores))
    said.append(f"$n = {numbers[0]}$ images" if len(numbers) == 1 else "$n$: images that a score rests on")
    if any(score.interval is not None for score in scores):
        said.append(r"in brackets: 95\,\% interval, by bootstrap over images")
    if bold:
        said.append("bold: best, where the paired difference from the next best is more than chance")
    return "; ".join(said) + "."


def _best(metric: str, systems: Mapping[str, Mapping[str, Score]], comparison: Comparison | None) -> str | None:
    """The system that is best for sure; None where that is not known."""
    scores = {name: table[metric] for name, table in systems.items() if metric in table}
    direction = next(iter(scores.values())).higher_is_better
    if comparison is None or direction is None or len(scores) < 2:
        return None
    if not all(math.isfinite(score.value) for score in scores.values()):
        return None
    ranked = sorted(scores, key=lambda system: scores[system].value, reverse=direction)
    found = comparison.find(metric, ranked[0], ranked[1]) or comparison.find(metric, ranked[1], ranked[0])
    return ranked[0] if found is not None and found.better == ranked[0] else None
