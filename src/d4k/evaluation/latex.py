r"""Scores as a LaTeX table for a paper, in the style of booktabs: it needs `\usepackage{booktabs}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from d4k.evaluation.difference import Comparison
from d4k.evaluation.tables import figure
from d4k.protocols import Score

__all__ = ["escape", "latex_table"]

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # at the beginning of a line it would be an option of the line break before
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
ARROWS = {True: r" $\uparrow$", False: r" $\downarrow$", None: ""}


def latex_table(rows: Mapping[str, Sequence[Score]], comparison: Comparison | None = None) -> str:
    """A table of scores, a row a system and a column a metric.

    The best value of a column is bold where its difference from the next best is real; without a comparison, or where
    that pair was not compared, nothing is bold.

    Args:
        rows: scores by name of the system.
        comparison: of the same systems, each with each.
    """
    names = list(dict.fromkeys(score.metric for scores in rows.values() for score in scores))
    tables = {system: {score.metric: score for score in scores} for system, scores in rows.items()}
    first = {name: next(table[name] for table in tables.values() if name in table) for name in names}
    heads = [_head(first[name]) for name in names]
    bold = {name: _best(name, tables, comparison) for name in names}
    lines = []
    for system, table in tables.items():
        cells = [_cell(table.get(name), bold[name] == system) for name in names]
        lines.append(" & ".join([escape(system), *cells]) + r" \\")
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'c' * len(names)}}}",
            r"\toprule",
            " & ".join(["", *heads]) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "% 95 % bootstrap intervals over pictures in brackets; pictures: "
            + ", ".join(f"{escape(name)} {_counts(name, tables)}" for name in names),
            "",
        ]
    )


def escape(text: str) -> str:
    r"""Text as LaTeX has it, on one line.

    >>> print(escape("SD3_F16 & 50 %"))
    SD3\_F16 \& 50 \%
    """
    return "".join(SPECIAL.get(sign, sign) for sign in " ".join(text.split()))


def _head(score: Score) -> str:
    return escape(f"{score.metric} [{score.unit}]" if score.unit else score.metric) + ARROWS[score.higher_is_better]


def _cell(score: Score | None, bold: bool) -> str:
    if score is None:
        return "--"
    value, _, interval = figure(score.value, score.interval).partition(" ")
    shown = rf"\textbf{{{value}}}" if bold else value
    return f"{shown} {{\\scriptsize {interval}}}" if interval else shown


def _best(metric: str, tables: Mapping[str, Mapping[str, Score]], comparison: Comparison | None) -> str | None:
    """The system that is best for sure; None where that is not known."""
    scores = {system: table[metric] for system, table in tables.items() if metric in table}
    direction = next(iter(scores.values())).higher_is_better
    if comparison is None or direction is None or len(scores) < 2:
        return None
    ranked = sorted(scores, key=lambda system: scores[system].value, reverse=direction)
    found = comparison.find(metric, ranked[0], ranked[1]) or comparison.find(metric, ranked[1], ranked[0])
    return ranked[0] if found is not None and found.better == ranked[0] else None


def _counts(metric: str, tables: Mapping[str, Mapping[str, Score]]) -> str:
    return "/".join(dict.fromkeys(str(table[metric].count) for table in tables.values() if metric in table))
