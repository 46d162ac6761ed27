"""The scores of a report for papers and programs: tables, JSON and figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from d4k.evaluation.difference import Comparison
from d4k.evaluation.figures import write_figures
from d4k.evaluation.latex import latex_table
from d4k.evaluation.result import Evaluation
from d4k.evaluation.tables import comparison_markdown, markdown_table, write_comparison, write_scores
from d4k.evaluation.votes import WinRate
from d4k.files import write_text

__all__ = ["write_exports"]


def write_exports(
    folder: Path, evaluations: Sequence[Evaluation], comparison: Comparison | None, rates: Sequence[WinRate]
) -> None:
    """Write tables in Markdown and LaTeX, all figures as JSON, and drawings.

    Args:
        folder: to write into; it exists.
        evaluations: of the systems.
        comparison: of the systems, each with each; None where there is none.
        rates: what people preferred.

    Raises:
        OutputError: a file cannot be written.
    """
    rows = {evaluation.name: evaluation.scores for evaluation in evaluations}
    markdown = [markdown_table(rows)]
    write_scores(rows, folder / "scores.json")
    if comparison is not None:
        markdown.append(comparison_markdown(comparison, rates))
        write_comparison(comparison, folder / "comparison.json", rates)
    write_text(folder / "table.md", "\n".join(markdown))
    write_text(folder / "table.tex", latex_table(rows, comparison))
    write_figures(folder / "figures", evaluations, comparison)
