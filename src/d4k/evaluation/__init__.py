"""From pictures to scores."""

from d4k.evaluation.compare import compare
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.figures import write_figures
from d4k.evaluation.latex import latex_table
from d4k.evaluation.measure import Measuring, measure
from d4k.evaluation.needs import HINTS, check_needs
from d4k.evaluation.pairs import pair_pictures, paired_by_prompt
from d4k.evaluation.result import Evaluation, Fault, Picture, read_evaluation, write_evaluation
from d4k.evaluation.rows import read_references, read_rows
from d4k.evaluation.run import evaluate, metrics_by_name
from d4k.evaluation.schema import read_schema
from d4k.evaluation.statistics import interval_of, resampled_figures, score_figures, score_rows
from d4k.evaluation.subjects import Subject, find_subjects, picture_files
from d4k.evaluation.systems import System, read_systems
from d4k.evaluation.tables import (
    ARROWS,
    comparison_markdown,
    comparison_table,
    markdown_table,
    score_table,
    write_comparison,
    write_scores,
)
from d4k.evaluation.torchmetrics import TorchMetric, as_metric
from d4k.evaluation.votes import Poll, Votes, WinRate, count_votes, read_votes, win_rate, win_rates

__all__ = [
    "ARROWS",
    "HINTS",
    "Comparison",
    "Difference",
    "Evaluation",
    "Fault",
    "Measuring",
    "Picture",
    "Poll",
    "Subject",
    "System",
    "TorchMetric",
    "Votes",
    "WinRate",
    "as_metric",
    "check_needs",
    "compare",
    "comparison_markdown",
    "comparison_table",
    "count_votes",
    "evaluate",
    "find_subjects",
    "interval_of",
    "latex_table",
    "markdown_table",
    "measure",
    "metrics_by_name",
    "pair_pictures",
    "paired_by_prompt",
    "picture_files",
    "read_evaluation",
    "read_references",
    "read_rows",
    "read_schema",
    "read_systems",
    "read_votes",
    "resampled_figures",
    "score_figures",
    "score_rows",
    "score_table",
    "win_rate",
    "win_rates",
    "write_comparison",
    "write_evaluation",
    "write_figures",
    "write_scores",
]
