"""From pictures to scores."""

from d4k.evaluation.run import HINTS, check_needs, evaluate, metrics_by_name
from d4k.evaluation.tables import ARROWS, markdown_table, score_table, write_scores

__all__ = [
    "ARROWS",
    "HINTS",
    "check_needs",
    "evaluate",
    "markdown_table",
    "metrics_by_name",
    "score_table",
    "write_scores",
]
