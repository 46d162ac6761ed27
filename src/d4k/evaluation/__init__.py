"""From pictures to scores."""

from d4k.evaluation.run import HINTS, check_needs, evaluate
from d4k.evaluation.tables import ARROWS, markdown_table, score_table, write_scores

__all__ = ["ARROWS", "HINTS", "check_needs", "evaluate", "markdown_table", "score_table", "write_scores"]
