"""Tables of scores and comparisons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from d4k.errors import ConfigError
from d4k.evaluation import markdown_table, score_table, write_scores
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.result import read_evaluation
from d4k.evaluation.tables import comparison_markdown, comparison_table, write_comparison
from d4k.evaluation.votes import win_rate
from d4k.protocols import Score

GLCM = Score("glcm", 0.84631, "bits", 3, True, {"levels": 64}, interval=(0.8119, 0.8794), remarks=("Few pictures.",))
RATIO = Score("cr", 12.0, "", 3, False, {"quality": 95}, {"bpp": 2.0})
FID = Score("fid", 151.42, "", 4, False, {"mode": "clean"}, interval=(146.2, 156.8), references=9)
ROWS = {
    "before": [GLCM, RATIO],
    "after the run": [evolve(GLCM, value=0.84624, interval=(0.8, 0.9), remarks=("Few pictures.", "A tie.")), FID],
}
DUEL = Difference(
    "glcm", "before", "after", 0.5, 0.75, 0.25, (0.2, 0.31), 0.00001, 7, 2, 1, 10, True, 0.03, "bits", True
)
OF_SETS = Difference("fid", "before", "after", 9.0, 8.0, -1.0, (-3.0, 1.0), None, 0, 0, 0, 10, False, None, "", False)
ALONE = evolve(OF_SETS, interval=None, a="after", b="a|b")
COMPARISON = Comparison(("before", "after", "a|b"), (DUEL, OF_SETS, ALONE), ("Sizes\ndiffer.", "Sizes\ndiffer."))


def test_table_aligns_one_row_a_system_and_one_column_a_figure() -> None:
    """A dash where a system has no such figure; settings and remarks once, and whose they are."""
    assert score_table(ROWS).splitlines() == [
        "               glcm [bits] ↑            cr ↓     bpp     fid ↓                 n",
        "before         0.8463 [0.8119, 0.8794]  12.0000  2.0000  -                     3",
        "after the run  0.8462 [0.8000, 0.9000]  -        -       151.4 [146.2, 156.8]  3/4",
        "",
        "↑ higher is better; ↓ lower is better; [ ]: 95 % interval, by bootstrap over images; n: images",
        "glcm: levels=64",
        "cr: quality=95",
        "fid: mode=clean; against 9 references",
        "glcm: Few pictures.",
        "glcm (after the run): A tie.",
    ]


def test_settings_that_differ_are_shown_apart() -> None:
    """A table of them compares nothing, and a reader must see it."""
    rows = {"a": [GLCM], "b": [evolve(GLCM, settings={"levels": 32}, remarks=())]}
    lines = score_table(rows).splitlines()
    assert lines[-3:] == ["glcm (a): levels=64", "glcm (b): levels=32", "glcm (a): Few pictures."]


def test_the_legend_explains_only_what_is_there() -> None:
    """No arrow, no interval."""
    assert score_table({"a": [Score("x", 1.0, "", 2, None)]}).splitlines() == [
        "   x       n",
        "a  1.0000  2",
        "",
        "n: images",
    ]


def test_markdown_has_the_same_figures_and_notes() -> None:
    """Below the table."""
    lines = markdown_table(ROWS).splitlines()
    assert lines[:4] == [
        "|  | glcm [bits] ↑ | cr ↓ | bpp | fid ↓ | n |",
        "| --- | --- | --- | --- | --- | --- |",
        "| before | 0.8463 [0.8119, 0.8794] | 12.0000 | 2.0000 | - | 3 |",
        "| after the run | 0.8462 [0.8000, 0.9000] | - | - | 151.4 [146.2, 156.8] | 3/4 |",
    ]
    assert [line.removeprefix("- ") for line in lines[5:]] == score_table(ROWS).splitlines()[4:]


def test_names_cannot_break_a_table() -> None:
    """Bars, line breaks, underscores and control characters, in the name of a system or a metric."""
    name = "a|b_c\nd & 5%\x1b[2J"
    rows = {name: [evolve(GLCM, metric="m|_\n", unit="|", details={"d|": 1.0}, remarks=("r\n| x |",))], "other": []}
    text = score_table(rows).splitlines()
    assert (len(text), text[1].startswith("a|b_c d & 5% [2J  ")) == (7, True)
    assert "\x1b" not in "".join(text)
    table = markdown_table(rows).splitlines()
    assert table[2].startswith(r"| a\|b\_c d \& 5% \[2J | ")
    assert all(line.replace(r"\|", "").count("|") == 5 for line in table[:4])
    assert table[-1] == r"- m\|\_: r \| x \|"
    assert table[3] == "| other | - | - | - |"


def test_a_comparison_is_a_line_a_metric_and_a_table_a_pair() -> None:
    """Wins only where pictures were counted; remarks once."""
    lines = comparison_table(COMPARISON, [win_rate("after", "before", 7, 3)]).splitlines()
    cells = [line.split("  ") for line in lines]
    table = [[cell.strip() for cell in line if cell.strip()] for line in cells]
    assert table[0] == ["after against before"]
    heads = ["metric", "before", "after", "difference", "real", "better", "p (Wilcoxon)", "p (Holm)", "wins", "losses"]
    assert table[2] == [*heads, "ties", "n"]
    glcm = "glcm [bits] ↑ | 0.500 | 0.750 | +0.250 [+0.200, +0.310] | yes | after | < 0.0001 | 0.0300 | 7 | 2 | 1 | 10"
    assert table[3] == glcm.split(" | ")
    assert table[4] == ["fid ↓", "9.0", "8.0", "-1.0 [-3.0, +1.0]", "no", *["-"] * 6, "10"]
    assert table[9] == ["fid ↓", "9.0000", "8.0000", "-1.0000", *["-"] * 7, "10"]
    assert table[14] == ["after over before", "70 % [40, 89]", "no", "10", "7", "3", "0"]
    assert lines[16:] == [
        "- difference: the second system less the first, with its 95 % interval; "
        "real: the interval excludes 0; n: pairs.",
        "- Sizes differ.",
    ]


def test_a_difference_is_shown_in_digits_that_tell_the_values_apart() -> None:
    """Also where its interval is wide."""
    close = evolve(DUEL, value_a=0.5001, value_b=0.5002, difference=0.0001, interval=(-0.5, 0.5), real=False)
    (line,) = (x for x in comparison_table(Comparison(("before", "after"), (close,))).splitlines() if "glcm" in x)
    assert line.split()[3:8] == ["0.5001", "0.5002", "+0.0001", "[-0.5000,", "+0.5000]"]


def test_a_comparison_in_markdown_is_escaped() -> None:
    """Headings and cells alike."""
    lines = comparison_markdown(COMPARISON).splitlines()
    assert r"## a\|b against after" in lines
    assert {line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")} == {13}


def test_scores_are_written_by_ending(tmp_path: Path) -> None:
    """JSON keeps every field of every score, Markdown the table; another ending is refused."""
    write_scores(ROWS, tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    assert (data["format"], [system["name"] for system in data["systems"]]) == (2, list(ROWS))
    assert data["systems"][0]["scores"][0] == {
        "metric": "glcm", "value": 0.84631, "unit": "bits", "count": 3, "higher_is_better": True,
        "settings": {"levels": 64}, "details": {}, "interval": [0.8119, 0.8794], "detail_intervals": {},
        "references": 0, "remarks": ["Few pictures."], "versions": {},
    }  # fmt: skip
    write_scores(ROWS, tmp_path / "a.md")
    assert (tmp_path / "a.md").read_text() == markdown_table(ROWS)
    write_scores(ROWS, tmp_path / "a.tex")
    assert r"\toprule" in (tmp_path / "a.tex").read_text()
    with pytest.raises(ConfigError, match=r"cannot write scores to 'a\.csv': the ending must be \.json, \.md or \.tex"):
        write_scores(ROWS, tmp_path / "a.csv")


def test_each_system_of_the_json_is_an_evaluation(tmp_path: Path) -> None:
    """There is one format: with its number, one of them reads as any `scores.json` does."""
    write_scores(ROWS, tmp_path / "a.json")
    data = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "scores.json").write_text(json.dumps({"format": data["format"], **data["systems"][1]}))
    read = read_evaluation(tmp_path)
    assert (read.name, list(read.scores)) == ("after the run", ROWS["after the run"])


def test_a_comparison_is_written_by_ending(tmp_path: Path) -> None:
    """JSON with what people preferred, or Markdown."""
    rates = [win_rate("after", "before", 7, 3)]
    write_comparison(COMPARISON, tmp_path / "a.json", rates)
    data = json.loads((tmp_path / "a.json").read_text())
    assert (data["format"], data["kind"], data["votes"][0]["rate"]) == (1, "d4k-comparison", 0.7)
    assert [found["p_adjusted"] for found in data["differences"]] == [0.03, None, None]
    write_comparison(COMPARISON, tmp_path / "a.md", rates)
    assert (tmp_path / "a.md").read_text() == comparison_markdown(COMPARISON, rates)
    with pytest.raises(ConfigError, match="the ending must be"):
        write_comparison(COMPARISON, tmp_path / "a.tex")
