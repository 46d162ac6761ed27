"""Scores and comparisons as tables: text for a terminal, Markdown, and files by their ending."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from d4k.errors import ConfigError
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.result import plain
from d4k.evaluation.votes import WinRate
from d4k.files import write_json, write_text
from d4k.protocols import Score

__all__ = [
    "ARROWS",
    "SYMBOLS",
    "comparison_markdown",
    "comparison_table",
    "figure",
    "markdown_table",
    "score_table",
    "write_comparison",
    "write_scores",
]

ARROWS = {True: "higher is better", False: "lower is better", None: ""}
SYMBOLS = {True: " ↑", False: " ↓", None: ""}
"""Arrows beside a metric that show where better is."""

Interval = tuple[float, float] | None


def score_table(rows: Mapping[str, Sequence[Score]]) -> str:
    """A plain-text table: one row a set of images, one column a metric with its interval, and the number of images.

    >>> print(score_table({"mine": [Score("glcm", 0.712, "bits", 3, True, interval=(0.65, 0.77))]}))
          glcm [bits]           n
          higher is better
    mine  0.712 [0.650, 0.770]  3
    """
    header, notes, body = _cells(rows)
    return _aligned([header, notes, *body])


def markdown_table(rows: Mapping[str, Sequence[Score]]) -> str:
    """The same table in Markdown, with the number of images, the settings and the remarks below it."""
    header, notes, body = _cells(rows)
    titles = [f"{h} ({n})" if n else h for h, n in zip(header, notes, strict=True)]
    foot = [f"- {s.metric}: {s.count} images, settings {dict(s.settings) or 'none'}" for s in _columns(rows).values()]
    remarks = [
        f"- {name}, {score.metric}: {remark}"
        for name, scores in rows.items()
        for score in scores
        for remark in score.remarks
    ]
    return "\n".join([*_markdown([titles, *body]), "", *foot, *remarks]) + "\n"


def figure(value: float, interval: Interval = None, *, sign: bool = False) -> str:
    """A value with its interval, in as many digits as the interval has to say.

    Args:
        value: to show.
        interval: of the value; its half width is shown in two digits.
        sign: whether positive values have a plus.

    >>> figure(0.84631, (0.8119, 0.8794)), figure(151.42, (146.2, 156.8)), figure(-0.5, sign=True)
    ('0.846 [0.812, 0.879]', '151.4 [146.2, 156.8]', '-0.5000')
    """
    plus = "+" if sign else ""
    if interval is None:
        return f"{value:{plus}.4f}"
    half = (interval[1] - interval[0]) / 2
    digits = 4 if half <= 0 else min(8, max(0, 1 - math.floor(math.log10(half))))
    return f"{value:{plus}.{digits}f} [{interval[0]:{plus}.{digits}f}, {interval[1]:{plus}.{digits}f}]"


def comparison_table(comparison: Comparison, rates: Sequence[WinRate] = ()) -> str:
    """A plain-text table for each two systems, a line a metric; below them the votes, and what a reader must know.

    Args:
        comparison: of systems.
        rates: win rates of votes.
    """
    blocks = []
    for a, b in dict.fromkeys((d.a, d.b) for d in comparison.differences):
        lines = [_line(d) for d in comparison.differences if (d.a, d.b) == (a, b)]
        blocks.append(f"{b} against {a}\n\n" + _aligned([_heads(a, b), *lines]))
    if rates:
        blocks.append("Votes\n\n" + _aligned([VOTES, *map(_vote_line, rates)]))
    if comparison.remarks:
        blocks.append("\n".join(f"- {remark}" for remark in comparison.remarks))
    return "\n\n".join(blocks)


def comparison_markdown(comparison: Comparison, rates: Sequence[WinRate] = ()) -> str:
    """The same tables in Markdown."""
    blocks = []
    for a, b in dict.fromkeys((d.a, d.b) for d in comparison.differences):
        lines = [_line(d) for d in comparison.differences if (d.a, d.b) == (a, b)]
        blocks.append("\n".join([f"## {_piped(b)} against {_piped(a)}", "", *_markdown([_heads(a, b), *lines])]))
    if rates:
        blocks.append("\n".join(["## Votes", "", *_markdown([VOTES, *map(_vote_line, rates)])]))
    if comparison.remarks:
        blocks.append("\n".join(f"- {remark}" for remark in comparison.remarks))
    return "\n\n".join(blocks) + "\n"


def write_scores(rows: Mapping[str, Sequence[Score]], path: Path) -> None:
    """Write scores as JSON, Markdown or LaTeX, by the ending of `path`.

    Raises:
        ConfigError: another ending.
        OutputError: the file cannot be written.
    """
    from d4k.evaluation.latex import latex_table

    if path.suffix == ".json":
        write_json(path, {"format": 1, "scores": plain({name: list(scores) for name, scores in rows.items()})})
    elif path.suffix == ".md":
        write_text(path, markdown_table(rows))
    elif path.suffix == ".tex":
        write_text(path, latex_table(rows))
    else:
        raise ConfigError(f"cannot write scores to '{path.name}': the ending must be .json, .md or .tex")


def write_comparison(comparison: Comparison, path: Path, rates: Sequence[WinRate] = ()) -> None:
    """Write a comparison as JSON or Markdown, by the ending of `path`; the schema is `comparison.schema.json`.

    Raises:
        ConfigError: another ending.
        OutputError: the file cannot be written.
    """
    if path.suffix == ".json":
        content = {"format": 1, "kind": "d4k-comparison", **plain(comparison), "votes": plain(list(rates))}
        write_json(path, content)
    elif path.suffix == ".md":
        write_text(path, comparison_markdown(comparison, rates))
    else:
        raise ConfigError(f"cannot write a comparison to '{path.name}': the ending must be .json or .md")


VOTES = ["", "preferred in", "real", "votes", "for", "against", "ties (half each)"]


def _vote_line(rate: WinRate) -> list[str]:
    share = f"{100 * rate.rate:.0f} % [{100 * rate.interval[0]:.0f}, {100 * rate.interval[1]:.0f}]"
    real = "yes" if rate.real else "no"
    return [f"{rate.a} over {rate.b}", share, real, *map(str, (rate.count, rate.wins, rate.losses, rate.ties))]


def _heads(a: str, b: str) -> list[str]:
    counts = ["wins", "losses", "ties"]
    return ["metric", a, b, "difference", "real", "better", "p (Wilcoxon)", "p (Holm)", *counts, "n"]


def _line(found: Difference) -> list[str]:
    title = f"{found.metric} [{found.unit}]" if found.unit else found.metric
    digits = _decimals(found.interval)
    single = found.p_value is not None and found.higher_is_better is not None
    counts = [str(count) if single else "-" for count in (found.wins, found.losses, found.ties)]
    return [
        title + SYMBOLS[found.higher_is_better],
        f"{found.value_a:.{digits}f}",
        f"{found.value_b:.{digits}f}",
        figure(found.difference, found.interval, sign=True),
        "-" if found.interval is None else "yes" if found.real else "no",
        found.better or "-",
        _p(found.p_value),
        _p(found.p_adjusted),
        *counts,
        str(found.count),
    ]


def _decimals(interval: Interval) -> int:
    shown = figure(0.0, interval).split(" ")[0]
    return len(shown.partition(".")[2])


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _cells(rows: Mapping[str, Sequence[Score]]) -> tuple[list[str], list[str], list[list[str]]]:
    """Titles, directions and lines of a table of all metrics; a dash where a system was not measured with one."""
    columns = _columns(rows)
    header, notes = [""], [""]
    for score in columns.values():
        header += [f"{score.metric} [{score.unit}]" if score.unit else score.metric, *score.details]
        notes += [ARROWS[score.higher_is_better], *([""] * len(score.details))]
    body = []
    for name, scores in rows.items():
        table, cells = {score.metric: score for score in scores}, [name]
        for metric, column in columns.items():
            own = table.get(metric)
            cells.append("-" if own is None else figure(own.value, own.interval))
            details = {} if own is None else own.details
            intervals = {} if own is None else own.detail_intervals
            cells += [figure(details[key], intervals.get(key)) if key in details else "-" for key in column.details]
        body.append([*cells, _counts(scores)])
    return [*header, "n"], [*notes, ""], body


def _columns(rows: Mapping[str, Sequence[Score]]) -> dict[str, Score]:
    """The metrics of all systems, each with the first score that there is."""
    found: dict[str, Score] = {}
    for scores in rows.values():
        for score in scores:
            found.setdefault(score.metric, score)
    return found


def _counts(scores: Sequence[Score]) -> str:
    """How many pictures scores rest on; several numbers where they differ."""
    return "/".join(str(count) for count in dict.fromkeys(score.count for score in scores))


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    titles, *body = [[_piped(cell) for cell in line] for line in lines]
    return ["| " + " | ".join(line) + " |" for line in (titles, ["---"] * len(titles), *body)]


def _piped(cell: str) -> str:
    """Names are anybody's text: a bar or a line break in one would break the table."""
    return " ".join(cell.split()).replace("|", "\\|")
