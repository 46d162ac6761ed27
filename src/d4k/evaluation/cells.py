"""Cells of tables: values in the digits that their intervals justify, and names as each format can hold them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "MISSING",
    "Interval",
    "aligned",
    "decimals",
    "escape_markdown",
    "figure",
    "figures",
    "markdown_lines",
    "one_line",
    "p_value",
]

Interval = tuple[float, float] | None

MISSING = "-"
"""In the cell of a system that was not measured so."""

DECIMALS, MOST = 4, 10
"""Decimals of a value that has no interval, and the most that are shown."""


def decimals(values: Sequence[float], intervals: Iterable[Interval] = ()) -> int:
    """How many decimals values of one column are shown with.

    The half width of the narrowest interval is shown in two digits; without intervals there are four decimals. There
    are more where two values that differ would look the same.

    Args:
        values: of the column.
        intervals: those that its values have.

    >>> decimals([0.84631], [(0.8119, 0.8794)]), decimals([151.42], [(146.2, 156.8)])
    (3, 1)
    >>> decimals([0.84631, 0.84629], [(0.8119, 0.8794)])
    5
    """
    halves = [(end[1] - end[0]) / 2 for end in intervals if end is not None]
    wide = [half for half in halves if math.isfinite(half) and half > 0]
    places = min(MOST, max(0, 1 - math.floor(math.log10(min(wide))))) if wide else DECIMALS
    finite = {float(f"{value:.9g}") + 0.0 for value in values if math.isfinite(value)}  # beyond nine digits is noise
    while places < MOST and len({_shown(value, places) for value in finite}) < len(finite):
        places += 1
    return places


def figure(value: float, interval: Interval = None, *, places: int | None = None, sign: bool = False) -> str:
    """A value with its interval.

    Args:
        value: to show.
        interval: of the value.
        places: decimals; by default what `decimals` says of this value alone.
        sign: whether positive values have a plus.

    >>> figure(0.84631, (0.8119, 0.8794)), figure(-0.5, sign=True), figure(float("nan"))
    ('0.846 [0.812, 0.879]', '-0.5000', 'undefined')
    """
    if places is None:
        places = decimals([value], [interval])
    shown = _shown(value, places, sign)
    return shown if interval is None else f"{shown} [{', '.join(_shown(end, places, sign) for end in interval)}]"


def figures(values: Sequence[float | None], intervals: Sequence[Interval]) -> list[str]:
    """A column of values with their intervals, all with the same decimals; `MISSING` where there is no value.

    >>> figures([0.84631, None, 0.5], [(0.8119, 0.8794), None, None])
    ['0.846 [0.812, 0.879]', '-', '0.500']
    """
    places = decimals([value for value in values if value is not None], intervals)
    return [
        MISSING if value is None else figure(value, interval, places=places)
        for value, interval in zip(values, intervals, strict=True)
    ]


def _shown(value: float, places: int, sign: bool = False) -> str:
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value and (abs(value) >= 1e9 or abs(value) < 10.0**-MOST):
        return f"{value:{'+' if sign else ''}.3e}"
    return f"{round(value, places) + 0.0:{'+' if sign else ''}.{places}f}"  # + 0.0: no minus before a zero


def p_value(value: float | None) -> str:
    """A p-value.

    >>> p_value(0.03121), p_value(0.00004), p_value(None)
    ('0.0312', '< 0.0001', '-')
    """
    return MISSING if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown_lines(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells, which are escaped already, as a table in Markdown; the first are the titles."""
    titles, *body = lines
    return ["| " + " | ".join(line) + " |" for line in (titles, ["---"] * len(titles), *body)]


def escape_markdown(text: str) -> str:
    r"""Text on one line, without what Markdown would take for its own signs.

    >>> print(escape_markdown("a|b_c & *d*"))
    a\|b\_c \& \*d\*
    """
    return re.sub(r"([\\`*_{}\[\]<>|&#~$])", r"\\\1", one_line(text))


def one_line(text: str) -> str:
    r"""Text without line breaks and control characters, which would break a table or steer a terminal.

    >>> one_line("a\n b\x1b[2J")
    'a b [2J'
    """
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
