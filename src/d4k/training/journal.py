"""What a run reports of each step: progress bar, `losses.jsonl` and TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL.Image import Image
from tqdm.auto import tqdm

from d4k.errors import OutputError
from d4k.files import write_text
from d4k.models import RunFolder
from d4k.training.events import EventFile
from d4k.training.processes import Processes

__all__ = ["Silence", "open_journal", "read_losses"]


class Journal:
    """Progress bar, `losses.jsonl` and TensorBoard of a run.

    Args:
        run: where the run is kept.
        steps: optimizer steps of the whole run.
        first: steps that are done already; later rows of an interrupted run are dropped.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """

    def __init__(self, run: RunFolder, steps: int, first: int) -> None:
        self.path = run.losses
        kept = [row for row in read_losses(run.path) if row["step"] <= first] if first else []
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        with _room_wanted(run.tensorboard):
            self.events = EventFile(run.tensorboard, first + 1)
        self.bar = tqdm(total=steps, initial=first, desc="training", unit="step")
        self.started = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def add(self, step: int, loss: float, norm: float, lr: float) -> None:
        """Record a step.

        Raises:
            OutputError: the disk is full.
        """
        with _room_wanted(self.events.path):
            self.events.add(step, {"loss": loss, "gradient norm": norm, "learning rate": lr})
        row = {"step": step, "loss": loss, "gradient_norm": norm, "lr": lr, "seconds": time.monotonic() - self.started}
        with _room_wanted(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.bar.set_postfix(loss=f"{loss:.4f}")
        self.bar.update()

    def show(self, step: int, figures: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        """Report what was seen of the model at a step.

        Raises:
            OutputError: the disk is full.
        """
        with _room_wanted(self.events.path):
            self.events.add(step, figures, pictures)

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        self.events.close()


class Silence:
    """The journal of every process but the first."""

    def __enter__(self) -> Silence:
        return self

    def add(self, *figures: float) -> None:
        """Record nothing."""

    def show(self, step: int, figures: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        """Report nothing."""

    def __exit__(self, *exception: object) -> None:
        pass


def open_journal(processes: Processes, run: RunFolder, steps: int, first: int) -> Journal | Silence:
    """The journal of a run, in the first of its processes; see `Journal`."""
    with processes.together():
        return Journal(run, steps, first) if processes.first else Silence()


@contextmanager
def _room_wanted(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; resume with --resume once there is room") from error


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `losses.jsonl`: step, loss, gradient_norm, lr, seconds. Empty where there is none.

    A last line that an interruption cut short is left out.

    Args:
        folder: of the run.
    """
    return list(_rows(RunFolder(folder).losses))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines[:-1]:
        yield json.loads(line)
