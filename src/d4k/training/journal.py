"""What a run reports of each step: progress bar, `losses.jsonl` and TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm.auto import tqdm

from d4k.errors import OutputError
from d4k.files import write_text

__all__ = ["LOSSES", "read_losses"]

LOSSES = "losses.jsonl"


class Journal:
    """Progress bar, `losses.jsonl` and TensorBoard of a run."""

    def __init__(self, folder: Path, accelerator: Accelerator, steps: int, first: int) -> None:
        self.accelerator, self.main = accelerator, accelerator.is_main_process
        self.path = folder / LOSSES
        kept = [row for row in read_losses(folder) if row["step"] <= first] if first else []
        if self.main:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        accelerator.init_trackers("tensorboard")
        self.bar = tqdm(total=steps, initial=first, desc="training", unit="step", disable=not self.main)
        self.started = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def add(self, step: int, loss: float, norm: float, lr: float) -> None:
        """Record a step."""
        self.accelerator.log({"loss": loss, "gradient norm": norm, "learning rate": lr}, step=step)
        if not self.main:
            return
        row = {"step": step, "loss": loss, "gradient_norm": norm, "lr": lr, "seconds": time.monotonic() - self.started}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}; resume with --resume once there is room"
            ) from error
        self.bar.set_postfix(loss=f"{loss:.4f}")
        self.bar.update()

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        self.accelerator.end_training()


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `losses.jsonl`: step, loss, gradient_norm, lr, seconds. Empty where there is none.

    A last line that an interruption cut short is left out.
    """
    return list(_rows(folder / LOSSES))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines[:-1]:
        yield json.loads(line)
