"""What a run reports of each step: progress bar, `losses.jsonl` and TensorBoard."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL.Image import Image
from tqdm.auto import tqdm

from d4k.errors import DataError, OutputError
from d4k.files import json_number, read_bytes, read_json_line, write_text
from d4k.models import RunFolder
from d4k.training.events import EventFile
from d4k.training.step import StepResult
from d4k.training.tracking import Tracking

__all__ = ["Journal", "read_losses"]

MENDED = "; resume the run to mend it from its checkpoint (d4k train RUN.toml --resume)"


class Journal:
    """Progress bar, `losses.jsonl` and TensorBoard of a run.

    Args:
        run: where the run is kept.
        steps: optimizer steps of the whole run.
        first: steps that are done already; later rows of an interrupted run are dropped.
        rows: of those steps, as the checkpoint keeps them; the list grows with every step. One that lacks some, of an
            older version of d4k, is filled from `losses.jsonl`.
        writes: whether this process is the one that opens the files and shows the bar.
        tracking: what else is told of every step; it is ended with the journal.

    Attributes:
        rows: of the steps that are done.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
        DataError: `losses.jsonl` is damaged, and no checkpoint keeps its rows.
    """

    def __init__(
        self,
        run: RunFolder,
        steps: int,
        first: int,
        rows: list[dict[str, Any]],
        writes: bool = True,
        tracking: Tracking | None = None,
    ) -> None:
        self.path, self.rows, self.tracking = run.losses, rows, tracking
        self.events: EventFile | None = None
        if writes:
            if len(rows) < first:
                rows[:] = _kept(run, first)
            elif first:
                _say_what_is_mended(run, rows)
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
            with self._tensorboard(run.tensorboard):
                self.events = EventFile(run.tensorboard, first + 1)
        self.writes, self.started = writes, time.monotonic()
        self.bar = tqdm(total=steps, initial=first, desc="training", unit="step", disable=not writes)

    def __enter__(self) -> Journal:
        return self

    @property
    def skipped_in_a_row(self) -> int:
        """How many of the newest steps were skipped."""
        return next((back for back, row in enumerate(reversed(self.rows)) if "skipped" not in row), len(self.rows))

    def add(self, step: int, result: StepResult, lr: float) -> None:
        """Record a step.

        Raises:
            OutputError: the disk is full.
        """
        seconds = time.monotonic() - self.started
        figures = {"loss": json_number(result.loss), "gradient_norm": json_number(result.norm)}
        row: dict[str, Any] = {"step": step, **figures, "lr": lr, "seconds": seconds}
        if result.skipped:
            row |= {"skipped": True, "ids": list(result.ids)}
        self.rows.append(row)
        if not self.writes:
            return
        shown = {"loss": row["loss"], "gradient norm": row["gradient_norm"], "learning rate": lr}
        self.show(step, {name: value for name, value in shown.items() if value is not None}, {})
        with _room_wanted(self.path), self.path.open("ab", buffering=0) as file:
            _write_all(file, (json.dumps(row) + "\n").encode())
        self.bar.set_postfix(loss=f"{result.loss:.4f}")
        self.bar.update()

    def show(self, step: int, figures: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        """Tell TensorBoard and the trackers of figures and small pictures of a step, in the first process alone."""
        if self.events is not None:
            with self._tensorboard(self.events.path):
                self.events.add(step, figures, pictures)
        if self.tracking is not None:
            self.tracking.show(step, figures, pictures)

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        if self.events is not None:
            self.events.close()
        if self.tracking is not None:
            self.tracking.finish()

    @contextmanager
    def _tensorboard(self, path: Path) -> Iterator[None]:
        """Go on without TensorBoard, once its file cannot be written: `losses.jsonl` has the same figures."""
        try:
            yield
        except OSError as error:
            if self.events is not None:
                self.events.close()
            self.events = None
            warnings.warn(
                f"cannot write {path}: {error.strerror or error}; training goes on without TensorBoard, and "
                f"{self.path.name} has the figures",
                stacklevel=4,
            )


@contextmanager
def _room_wanted(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; resume with --resume once there is room") from error


def _write_all(file: Any, line: bytes) -> None:
    """Write a line, of which a disk that is nearly full may take a part at first."""
    while line:
        line = line[file.write(line) :]


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `losses.jsonl`: step, loss, gradient_norm, lr, seconds. Empty where there is none.

    A step that was skipped has no loss (None) where that was not finite, `skipped` (True) and the `ids` of its
    pictures. A last line that an interruption cut short is left out.

    Args:
        folder: of the run.

    Raises:
        DataError: the file cannot be read, a line is no JSON, or the steps do not count up from 1 one by one; `path`
            and `line` are set. Resuming the run mends it.
    """
    path = RunFolder(folder).losses
    return list(_rows(path)) if path.is_file() else []


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    *lines, _ = read_bytes(path, DataError).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = read_json_line(line, path, number)
        except DataError as error:
            raise DataError(f"{error}{MENDED}", path, number) from error
        if not isinstance(row, dict) or row.get("step") != number:
            found = f"of step {row.get('step')}" if isinstance(row, dict) else "no step"
            what = f"{path}, line {number} is {found}, not of step {number}"
            raise DataError(f"{what}: lines are missing or doubled{MENDED}", path, number)
        yield row


def _kept(run: RunFolder, first: int) -> list[dict[str, Any]]:
    """The rows of the steps that are done, where no checkpoint keeps them."""
    rows = read_losses(run.path)[:first]
    if len(rows) < first:
        raise DataError(f"{run.losses} ends at step {len(rows)}, and {first} were done: its lines are lost", run.losses)
    return rows


def _say_what_is_mended(run: RunFolder, rows: Sequence[dict[str, Any]]) -> None:
    """Warn where `losses.jsonl` is not what the checkpoint says of the steps that are done."""
    found, fault = [], "its lines are not those of the checkpoint"
    try:
        for row in _rows(run.losses):
            found.append(row)
    except DataError as error:
        fault = str(error).removesuffix(MENDED)
    else:
        if len(found) < len(rows):
            fault = f"it ends at step {len(found)}"
    if found[: len(rows)] != list(rows):
        warnings.warn(
            f"{run.losses} was damaged ({fault}); its lines of steps 1 to {len(rows)} come from the checkpoint now",
            stacklevel=3,
        )
