"""Steps that are left out, since their loss or gradient is not finite."""

from __future__ import annotations

import math
import warnings

from d4k.errors import D4KError
from d4k.training.step import StepResult

__all__ = ["report_skipped"]


def report_skipped(step: int, result: StepResult, in_a_row: int, most: int) -> None:
    """Warn of a step that was skipped, or end the run.

    Args:
        step: its number.
        result: of the step.
        in_a_row: how many were skipped one after the other, this one included.
        most: how many may be.

    Raises:
        D4KError: it is one too many.
    """
    what = f"its loss is {result.loss}" if not math.isfinite(result.loss) else f"its gradient is {result.norm}"
    pictures = f", with the pictures {', '.join(result.ids)}" if result.ids else ""
    if in_a_row > most:
        raise D4KError(
            f"step {step} was skipped, since {what}{pictures}; that is {in_a_row} in a row, and training.max_skipped = "
            f"{most} allows no more. Look at the pictures, lower optimizer.lr, or set training.precision to 'bf16' or "
            "'no'; checkpoints up to here are kept"
        )
    count = f"{in_a_row} in a row of at most {most} (training.max_skipped)"
    warnings.warn(f"step {step} was skipped, since {what}{pictures}; {count}", stacklevel=2)
