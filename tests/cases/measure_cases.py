"""A metric that writes down what it observes, and measurements that other processes run."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import accelerate.utils  # noqa: F401 - what a process would import later
import torch
from attrs import field, frozen
from torch import Tensor

from d4k.errors import DataError
from d4k.evaluation import Measuring, find_subjects, measure, observe

NEEDS = ("image", "file")


@frozen
class Mean:
    """The mean level of pictures; `log` is a file that gets the name of each that is observed."""

    log: Path | None = None
    least: int = 1
    kill_at: int = 0
    needs: frozenset[Any] = field(default=frozenset(NEEDS), init=False)
    higher_is_better: bool = field(default=True, init=False)
    unit: str = field(default="levels", init=False)
    loads: list[str] = field(factory=list, init=False, eq=False)
    seen: list[int] = field(factory=list, init=False, eq=False)

    @property
    def settings(self) -> dict[str, Any]:
        return {"least": self.least}

    @property
    def observation(self) -> dict[str, Any]:
        return {"rows": "mean level"}

    def load(self, device: torch.device) -> None:
        self.loads.append(str(device))

    def observe(self, image: Sequence[Tensor], file: Sequence[Path]) -> Tensor:
        self.seen.append(len(image))
        if any(min(picture.shape[1:]) < self.least for picture in image):
            raise DataError(f"a picture is smaller than {self.least} pixels")
        if self.log is not None:
            with self.log.open("a") as log:
                log.writelines(f"{path.name}\n" for path in file)
        if self.kill_at and sum(self.seen) >= self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.stack([picture.double().mean() for picture in image])[:, None]

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean())


def main(
    folder: Path, output: Path, log: Path, kill_at: int, variables: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Measure a folder, two pictures at a time, with what a launcher would have put into the environment."""
    torch.set_num_threads(1)
    os.environ.update(variables)
    observe.COUNT = 2  # type: ignore[attr-defined]
    settings = Measuring(output=output, resamples=20, name="it", device="cpu", workers=1)
    measure(find_subjects(folder), {"mean": Mean(log=log, kill_at=kill_at)}, settings)
