"""From pictures to scores."""

from d4k.evaluation.pairs import pair_pictures, paired_by_prompt
from d4k.evaluation.run import HINTS, check_needs, evaluate, metrics_by_name
from d4k.evaluation.statistics import interval_of, resampled_figures, score_figures, score_rows
from d4k.evaluation.tables import ARROWS, markdown_table, score_table, write_scores
from d4k.evaluation.torchmetrics import TorchMetric, as_metric

__all__ = [
    "ARROWS",
    "HINTS",
    "TorchMetric",
    "as_metric",
    "check_needs",
    "evaluate",
    "interval_of",
    "markdown_table",
    "metrics_by_name",
    "pair_pictures",
    "paired_by_prompt",
    "resampled_figures",
    "score_figures",
    "score_rows",
    "score_table",
    "write_scores",
]
