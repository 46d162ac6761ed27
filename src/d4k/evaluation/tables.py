"""Scores and comparisons as tables: text for a terminal, Markdown, and files by their ending."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from d4k.errors import ConfigError
from d4k.evaluation import result
from d4k.evaluation.cells import aligned, decimals, escape_markdown, figure, figures, markdown_lines, one_line, p_value
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.votes import WinRate
from d4k.files import write_json, write_text
from d4k.protocols import Score

__all__ = [
    "ARROWS",
    "SYMBOLS",
    "columns",
    "comparison_markdown",
    "comparison_table",
    "counts",
    "legend",
    "markdown_table",
    "score_table",
    "write_comparison",
    "write_scores",
]

ARROWS = {True: "higher is better", False: "lower is better", None: ""}
SYMBOLS = {True: " ↑", False: " ↓", None: ""}
"""Arrows beside a metric that show where better is."""

FORMAT = 1
"""Of a comparison's JSON."""

Escape = Callable[[str], str]


def score_table(rows: Mapping[str, Sequence[Score]]) -> str:
    """A plain-text table: one row a set of images, one column a metric with its interval, and the number of images.

    Below it is what the signs mean, and each remark and each metric's settings once.

    Args:
        rows: scores by name of the system; a system may lack a metric that others have.

    >>> print(score_table({"mine": [Score("glcm", 0.712, "bits", 3, True, interval=(0.65, 0.77))]}))
          glcm [bits] ↑         n
    mine  0.712 [0.650, 0.770]  3
    <BLANKLINE>
    ↑ higher is better; [ ]: 95 % interval, by bootstrap over images; n: images
    """
    return aligned(_cells(rows, one_line)) + "\n\n" + "\n".join([legend(rows), *_notes(rows, one_line)])


def markdown_table(rows: Mapping[str, Sequence[Score]]) -> str:
    """The same table in Markdown, and below it the same notes.

    Args:
        rows: scores by name of the system.
    """
    notes = [f"- {note}" for note in _notes(rows, escape_markdown)]
    lines = [*markdown_lines(_cells(rows, escape_markdown)), "", f"- {legend(rows)}", *notes]
    return "\n".join(lines) + "\n"


def columns(rows: Mapping[str, Sequence[Score]]) -> dict[str, Score]:
    """The metrics of all systems in their order, each with the first score that there is.

    Args:
        rows: scores by name of the system.
    """
    found: dict[str, Score] = {}
    for scores in rows.values():
        for score in scores:
            found.setdefault(score.metric, score)
    return found


def counts(scores: Sequence[Score]) -> str:
    """How many pictures scores rest on; several numbers where metrics differ."""
    return "/".join(str(count) for count in dict.fromkeys(score.count for score in scores)) or "-"


def legend(rows: Mapping[str, Sequence[Score]]) -> str:
    """What the signs of a table of scores mean; of signs that are not in it, nothing."""
    scores = [score for system in rows.values() for score in system]
    directions = dict.fromkeys(score.higher_is_better for score in scores)
    said = [f"{SYMBOLS[way].strip()} {ARROWS[way]}" for way in (True, False) if way in directions]
    if any(score.interval is not None or score.detail_intervals for score in scores):
        said.append("[ ]: 95 % interval, by bootstrap over images")
    return "; ".join([*said, "n: images"])


def comparison_table(comparison: Comparison, rates: Sequence[WinRate] = ()) -> str:
    """A plain-text table for each two systems, a line a metric; below them the votes, and what a reader must know.

    Args:
        comparison: of systems.
        rates: win rates of votes.
    """
    blocks = [f"{title}\n\n{aligned(lines)}" for title, lines in _compared(comparison, rates, one_line)]
    return "\n\n".join([*blocks, "\n".join(f"- {one_line(remark)}" for remark in _remarks(comparison))])


def comparison_markdown(comparison: Comparison, rates: Sequence[WinRate] = ()) -> str:
    """The same tables in Markdown.

    Args:
        comparison: of systems.
        rates: win rates of votes.
    """
    blocks = [
        "\n".join([f"## {title}", "", *markdown_lines(lines)])
        for title, lines in _compared(comparison, rates, escape_markdown)
    ]
    return "\n\n".join([*blocks, "\n".join(f"- {escape_markdown(remark)}" for remark in _remarks(comparison))]) + "\n"


def write_scores(rows: Mapping[str, Sequence[Score]], path: Path) -> None:
    """Write scores as JSON, Markdown or LaTeX, by the ending of `path`.

    The JSON is a list of systems, each as `write_evaluation` writes it, without pictures; `schemas/scores.schema.json`
    describes both.

    Args:
        rows: scores by name of the system.
        path: to write, whole or not at all.

    Raises:
        ConfigError: another ending.
        OutputError: the file cannot be written.
    """
    from d4k.evaluation.latex import latex_table

    if path.suffix == ".json":
        systems = [{"name": name, "scores": result.plain(list(scores))} for name, scores in rows.items()]
        write_json(path, {"format": result.FORMAT, "systems": systems})
    elif path.suffix == ".md":
        write_text(path, markdown_table(rows))
    elif path.suffix == ".tex":
        write_text(path, latex_table(rows))
    else:
        raise ConfigError(f"cannot write scores to '{path.name}': the ending must be .json, .md or .tex")


def write_comparison(comparison: Comparison, path: Path, rates: Sequence[WinRate] = ()) -> None:
    """Write a comparison as JSON or Markdown, by the ending of `path`.

    `schemas/comparison.schema.json` describes the JSON.

    Args:
        comparison: of systems.
        path: to write, whole or not at all.
        rates: win rates of votes.

    Raises:
        ConfigError: another ending.
        OutputError: the file cannot be written.
    """
    if path.suffix == ".json":
        plain: dict[str, Any] = result.plain(comparison)
        write_json(path, {"format": FORMAT, "kind": "d4k-comparison", **plain, "votes": result.plain(list(rates))})
    elif path.suffix == ".md":
        write_text(path, comparison_markdown(comparison, rates))
    else:
        raise ConfigError(f"cannot write a comparison to '{path.name}': the ending must be .json or .md")


def _cells(rows: Mapping[str, Sequence[Score]], escape: Escape) -> list[list[str]]:
    """Titles and lines of a table of all metrics; a dash where a system was not measured with one."""
    table = [["", *(escape(name) for name in rows)]]
    systems = [{score.metric: score for score in scores} for scores in rows.values()]
    for metric, first in columns(rows).items():
        own = [system.get(metric) for system in systems]
        title = _titled(first, escape)
        values = [None if score is None else score.value for score in own]
        table.append([title, *figures(values, [None if score is None else score.interval for score in own])])
        for key in dict.fromkeys(key for score in own if score is not None for key in score.details):
            values = [None if score is None else score.details.get(key) for score in own]
            intervals = [None if score is None else score.detail_intervals.get(key) for score in own]
            table.append([escape(key), *figures(values, intervals)])
    table.append(["n", *(counts(scores) for scores in rows.values())])
    return [list(line) for line in zip(*table, strict=True)]


def _titled(of: Score | Difference, escape: Escape) -> str:
    unit = f" [{escape(of.unit)}]" if of.unit else ""
    return f"{escape(of.metric)}{unit}{SYMBOLS[of.higher_is_better]}"


def _notes(rows: Mapping[str, Sequence[Score]], escape: Escape) -> list[str]:
    """Settings and remarks, each once, with the metrics that they are of, and the systems where not all have them."""
    settings: dict[str, list[tuple[str, str]]] = {}
    remarks: dict[str, list[tuple[str, str]]] = {}
    for system, scores in rows.items():
        for score in scores:
            said = ", ".join(f"{key}={value}" for key, value in score.settings.items())
            against = f"; against {score.references} references" if score.references else ""
            if said or against:
                settings.setdefault(f"{said or 'no settings'}{against}", []).append((system, score.metric))
            for remark in score.remarks:
                remarks.setdefault(remark, []).append((system, score.metric))
    return [escape(f"{_whose(whose, rows)}: {said}") for notes in (settings, remarks) for said, whose in notes.items()]


def _whose(whose: Sequence[tuple[str, str]], rows: Mapping[str, Sequence[Score]]) -> str:
    metrics = dict.fromkeys(metric for _, metric in whose)
    systems = dict.fromkeys(system for system, _ in whose)
    measured = [name for name, scores in rows.items() if any(score.metric in metrics for score in scores)]
    named = f" ({', '.join(map(one_line, systems))})" if list(systems) != measured else ""
    return ", ".join(map(one_line, metrics)) + named


VOTES = ["", "preferred in", "real", "votes", "for", "against", "ties (half each)"]


def _compared(comparison: Comparison, rates: Sequence[WinRate], escape: Escape) -> list[tuple[str, list[list[str]]]]:
    """A title and a table for each two systems, and one of the votes."""
    found = []
    for a, b in dict.fromkeys((d.a, d.b) for d in comparison.differences):
        of = [d for d in comparison.differences if (d.a, d.b) == (a, b)]
        heads = ["metric", escape(a), escape(b), "difference", "real", "better", "p (Wilcoxon)", "p (Holm)"]
        lines = [[*heads, "wins", "losses", "ties", "n"], *(_line(d, escape) for d in of)]
        found.append((f"{escape(b)} against {escape(a)}", lines))
    if rates:
        found.append(("Votes", [VOTES, *(_vote_line(rate, escape) for rate in rates)]))
    return found


def _line(found: Difference, escape: Escape) -> list[str]:
    places = decimals([found.value_a, found.value_b], [found.interval])
    if found.difference:
        places = max(places, decimals([found.difference, 0.0], [found.interval]))
    counted = found.p_value is not None and found.higher_is_better is not None
    return [
        _titled(found, escape),
        figure(found.value_a, places=places),
        figure(found.value_b, places=places),
        figure(found.difference, found.interval, places=places, sign=True),
        "-" if found.interval is None else "yes" if found.real else "no",
        "-" if found.better is None else escape(found.better),
        p_value(found.p_value),
        p_value(found.p_adjusted),
        *(str(count) if counted else "-" for count in (found.wins, found.losses, found.ties)),
        str(found.count),
    ]


def _vote_line(rate: WinRate, escape: Escape) -> list[str]:
    share = f"{100 * rate.rate:.0f} % [{100 * rate.interval[0]:.0f}, {100 * rate.interval[1]:.0f}]"
    tally = (rate.count, rate.wins, rate.losses, rate.ties)
    return [escape(f"{rate.a} over {rate.b}"), share, "yes" if rate.real else "no", *map(str, tally)]


def _remarks(comparison: Comparison) -> list[str]:
    explained = "difference: the second system less the first, with its 95 % interval; real: the interval excludes 0"
    return [f"{explained}; n: pairs.", *dict.fromkeys(comparison.remarks)]
