"""Steps that are left out, since their loss or gradient is not finite."""

from __future__ import annotations

import math
import warnings
from typing import Any

from d4k.errors import D4KError
from d4k.training.journal import Journal
from d4k.training.step import StepResult

__all__ = ["advance", "report_skipped"]


def report_skipped(step: int, result: StepResult, journal: Journal, most: int) -> None:
    """Warn of a step that was skipped, or end the run.

    Args:
        step: its number.
        result: of the step.
        journal: that has it already.
        most: how many steps in a row may be skipped.

    Raises:
        D4KError: it is one too many.
    """
    what = f"its loss is {result.loss}" if not math.isfinite(result.loss) else f"its gradient is {result.norm}"
    in_a_row = journal.skipped_in_a_row
    pictures = f", with the pictures {', '.join(result.ids)}" if result.ids else ""
    if in_a_row > most:
        raise D4KError(
            f"step {step} was skipped, since {what}{pictures}; that is {in_a_row} in a row, and training.max_skipped = "
            f"{most} allows no more. Look at the pictures, lower optimizer.lr, or set training.precision to 'bf16' or "
            "'no'; checkpoints up to here are kept"
        )
    if journal.writes:
        count = f"{in_a_row} in a row of at most {most} (training.max_skipped)"
        warnings.warn(f"step {step} was skipped, since {what}{pictures}; {count}", stacklevel=2)


def advance(schedule: Any, *, skipped: bool) -> None:
    """Go on in the course of the learning rate, which counts steps, also those that were skipped.

    Args:
        schedule: of torch.
        skipped: whether the step was.
    """
    if not skipped:
        schedule.step()
        return
    with warnings.catch_warnings():  # where the first step was skipped, torch misses the optimizer's
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before", UserWarning)
        schedule.step()
