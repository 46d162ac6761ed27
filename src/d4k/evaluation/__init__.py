"""From pictures to scores."""

from d4k.evaluation.run import HINTS, check_needs, evaluate, metrics_by_name
from d4k.evaluation.tables import ARROWS, markdown_table, score_table, write_scores
from d4k.evaluation.torchmetrics import TorchMetric, as_metric

__all__ = [
    "ARROWS",
    "HINTS",
    "TorchMetric",
    "as_metric",
    "check_needs",
    "evaluate",
    "markdown_table",
    "metrics_by_name",
    "score_table",
    "write_scores",
]
