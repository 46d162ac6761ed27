"""Tables for a paper. No TeX is needed: braces, columns and signs are counted."""

from __future__ import annotations

import re

import pytest
from attrs import evolve

from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.latex import escape, latex_table
from d4k.protocols import Score

UP = Score("glcm", 0.7, "bits", 10, True, interval=(0.6, 0.8))
DOWN = Score("fid", 150.0, "", 10, False, interval=(140.0, 160.0))


def rows(**values: tuple[float, float]) -> dict[str, list[Score]]:
    return {name: [evolve(UP, value=up), evolve(DOWN, value=down)] for name, (up, down) in values.items()}


def duel(metric: str, a: str, b: str, difference: float, *, real: bool, up: bool) -> Difference:
    return Difference(metric, a, b, 0, difference, difference, (0, 0), 0.5, 1, 1, 1, 3, real, higher_is_better=up)


def body(table: str) -> list[list[str]]:
    inside = table.split("\\midrule\n")[1].split("\\bottomrule")[0]
    return [re.split(r"(?<!\\) & ", line.removesuffix(" \\\\")) for line in inside.splitlines()]


def test_a_table_is_whole() -> None:
    """Three rules, a caption that explains its signs, a cell for each metric and the number of images."""
    table = latex_table({"a": [UP, DOWN], "b": [evolve(UP, value=-0.5, interval=None)]})
    assert [table.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 1, 1]
    assert re.findall(r"\\(begin|end)\{(\w+)\}", table) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table"),
    ]  # fmt: skip
    assert r" & glcm [bits] $\uparrow$ & fid $\downarrow$ & $n$ \\" in table
    assert body(table) == [
        ["a", r"0.70 {\scriptsize [0.60, 0.80]}", r"150 {\scriptsize [140, 160]}", "10"],
        ["b", "$-$0.50", "--", "10"],
    ]
    assert (
        r"\caption{$\uparrow$ higher is better; $\downarrow$ lower is better; $n = 10$ images; "
        r"in brackets: 95\,\% interval, by bootstrap over images.}"
    ) in table


@pytest.mark.parametrize(("real", "bold"), [(True, ["b", "c"]), (False, [])])
def test_the_best_is_bold_only_where_it_beats_the_next_for_sure(real: bool, bold: list[str]) -> None:
    """By the direction of the metric; in whichever order the two were compared."""
    table = rows(a=(0.5, 100.0), b=(0.9, 90.0), c=(0.7, 80.0))
    found = Comparison(
        ("a", "b", "c"),
        (
            duel("glcm", "a", "b", 0.4, real=True, up=True),
            duel("glcm", "b", "c", -0.2, real=real, up=True),
            duel("fid", "b", "c", -10, real=real, up=False),
            duel("fid", "a", "c", -20, real=True, up=False),
        ),
    )
    lines = body(latex_table(table, found))
    assert [line[0] for column in (1, 2) for line in lines if "textbf" in line[column]] == bold
    assert ("bold: best" in latex_table(table, found)) is real


def test_nothing_is_bold_without_a_comparison_a_direction_or_a_number() -> None:
    """A mean that is higher may be chance."""
    table = rows(a=(0.5, 100.0), b=(0.9, 90.0))
    real = Comparison(("a", "b"), (duel("glcm", "a", "b", 0.4, real=True, up=True),))
    assert latex_table(table, real).count("textbf") == 1
    assert "textbf" not in latex_table(table)
    assert "textbf" not in latex_table({k: [evolve(v[0], higher_is_better=None)] for k, v in table.items()}, real)
    assert "textbf" not in latex_table({**table, "c": [evolve(UP, value=float("nan"))]}, real)


def test_names_cannot_break_a_table() -> None:
    """All signs of TeX, a bracket or star where a line break would take it for an option, and line breaks."""
    nasty = "[x]_&%$#{}~^\\<|>\n* 100 %--\x1b"
    table = latex_table({nasty: [evolve(UP, metric=nasty, unit=nasty)], "*": [], "]": []})
    assert [line[0][:3] for line in body(table)] == ["{[}", "{*}", "]"]
    assert {len(line) for line in body(table)} == {3}
    without = re.sub(r"\\[&%$#_{}\\]", "", table)
    depth = 0
    for sign in without:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    assert without.count("$") % 2 == 0
    assert not set("~^<>|#%\x1b") & set(without.replace(r"\,%", ""))


def test_text_is_escaped_once() -> None:
    """A backslash of an escape is not escaped again, and two hyphens are no dash."""
    assert escape("a_b\\c{d}") == r"a\_b\textbackslash{}c\{d\}"
    assert escape("---") == "-{}-{}-"
