"""Tables: digits that an interval allows, directions, LaTeX that compiles whatever a system is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d4k.errors import ConfigError
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.latex import escape, latex_table
from d4k.evaluation.tables import (
    comparison_markdown,
    comparison_table,
    figure,
    markdown_table,
    score_table,
    write_comparison,
    write_scores,
)
from d4k.evaluation.votes import win_rate
from d4k.protocols import Score

ROWS = {
    "old_1": [Score("fid", 43.821, "", 195, False, interval=(41.9, 45.8)), Score("glcm", 0.75, "bits", 195, True)],
    "new & [2]": [Score("fid", 40.182, "", 195, False, interval=(38.1, 42.4)), Score("glcm", 0.79, "bits", 194, True)],
}
REAL = Difference(
    "fid", "old_1", "new & [2]", 43.821, 40.182, -3.639, (-5.1, -2.2), None, 0, 0, 0, 195, True, None, "", False
)
CHANCE = Difference(
    "glcm", "old_1", "new & [2]", 0.75, 0.79, 0.04, (-0.01, 0.09), 0.031, 9, 5, 1, 15, False, 0.062, "bits", True
)
COMPARISON = Comparison(("old_1", "new & [2]"), (REAL, CHANCE), ("A remark.",))


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (0.84631, (0.8119, 0.8794), "0.846 [0.812, 0.879]"),
        (151.42, (146.2, 156.8), "151.4 [146.2, 156.8]"),
        (1234.5, (1000.0, 1500.0), "1234 [1000, 1500]"),
        (0.5, None, "0.5000"),
        (0.5, (0.5, 0.5), "0.5000 [0.5000, 0.5000]"),
    ],
)
def test_a_value_has_as_many_digits_as_its_interval_allows(value: float, interval: object, shown: str) -> None:
    assert figure(value, interval) == shown  # type: ignore[arg-type]


def test_scores_have_intervals_and_counts() -> None:
    """Counts that differ are all shown."""
    assert score_table(ROWS).splitlines() == [
        "           fid                glcm [bits]       n",
        "           lower is better    higher is better",
        "old_1      43.8 [41.9, 45.8]  0.7500            195",
        "new & [2]  40.2 [38.1, 42.4]  0.7900            195/194",
    ]


def test_markdown_has_remarks_and_survives_bars() -> None:
    rows = {"a|b": [Score("m", 1.0, "", 2, None, remarks=("Few.",))]}
    lines = markdown_table(rows).splitlines()
    assert lines[2] == "| a\\|b | 1.0000 | 2 |"
    assert lines[-1] == "- a|b, m: Few."


def test_comparison_is_a_line_a_metric() -> None:
    """Arrows, whether it is real, p, and no counts where there are no values of single pictures."""
    text = comparison_table(COMPARISON, [win_rate("new & [2]", "old_1", 7, 3)])
    assert [" ".join(line.split()) for line in text.splitlines()[3:5]] == [
        "fid ↓ 43.8 40.2 -3.6 [-5.1, -2.2] yes new & [2] - - - - - 195",
        "glcm [bits] ↑ 0.750 0.790 +0.040 [-0.010, +0.090] no - 0.0310 0.0620 9 5 1 15",
    ]
    assert "new & [2] over old_1  70 % [40, 89]  no    10     7    3        0" in text
    assert text.endswith("- A remark.")
    assert "| fid ↓ | 43.8 | 40.2 | -3.6 [-5.1, -2.2] | yes | new & [2] |" in comparison_markdown(COMPARISON)


def test_latex_is_escaped_and_the_best_is_bold_where_it_is_real() -> None:
    lines = latex_table(ROWS, COMPARISON).splitlines()
    assert lines[2] == r" & fid $\downarrow$ & glcm {[}bits] $\uparrow$ \\"
    assert lines[4] == r"old\_1 & 43.8 {\scriptsize [41.9, 45.8]} & 0.7500 \\"
    assert lines[5] == r"new \& {[}2] & \textbf{40.2} {\scriptsize [38.1, 42.4]} & 0.7900 \\"
    assert "textbf" not in latex_table(ROWS)
    assert escape("a\\b{c}~^<%$#\n_") == (
        r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}\textless{}\%\$\# \_"
    )


def test_files_are_written_by_ending(tmp_path: Path) -> None:
    write_scores(ROWS, tmp_path / "a.tex")
    assert (tmp_path / "a.tex").read_text() == latex_table(ROWS)
    write_comparison(COMPARISON, tmp_path / "c.json", [win_rate("new & [2]", "old_1", 7, 3)])
    data = json.loads((tmp_path / "c.json").read_text())
    assert (data["differences"][0]["interval"], data["votes"][0]["wins"]) == ([-5.1, -2.2], 7)
    write_comparison(COMPARISON, tmp_path / "c.md")
    assert (tmp_path / "c.md").read_text() == comparison_markdown(COMPARISON)
    with pytest.raises(ConfigError, match=r"cannot write a comparison to 'c\.csv': the ending must be \.json or \.md"):
        write_comparison(COMPARISON, tmp_path / "c.csv")
