"""A small benchmark, run by other processes: killed again and again, or shared by two.

python benchmark_cases.py kill FOLDER STEP    a fork of this process at a time, until one ends
python benchmark_cases.py run FOLDER          once; under a launcher, this process's share
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from d4k import D4KError
from d4k.benchmark import BenchmarkSettings, run_benchmark
from d4k.benchmark.plan import make_plan
from d4k.models import Loading, ModelRef

SETTINGS: dict[str, Any] = {
    "models": "tiny-sd3",
    "dataset": "sample-photos",
    "dataset_options": {"names": ["coffee", "brick"]},
    "width": 128,
    "height": 128,
    "steps": 2,
    "metrics": ("compression-ratio",),
    "loading": Loading(device="cpu"),
}
"""The model's own size is given to be 64 pixels a side, so that there is something to enlarge."""


def settings(**changed: Any) -> BenchmarkSettings:
    """The settings, with some of them changed."""
    model = ModelRef("tiny-sd3", options={"trained_size": 64})
    return BenchmarkSettings(**{**SETTINGS, "models": (model,), **changed})


def die_after(count: int) -> None:
    """Kill this process by SIGKILL when it makes its `count`-th write last: before it where that is odd."""
    left = [count]

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and count % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for owner, name in ((Path, "replace"), (os, "fsync")):
        setattr(owner, name, counted(getattr(owner, name)))


def killed(folder: Path, step: int) -> int:
    """Run the benchmark again and again, killed `step` writes later each time; returns how often it was killed."""
    make_plan(settings())  # imports what every run needs
    kills = 0
    while True:
        child = os.fork()
        if not child:
            die_after(1 + step * kills)
            run_benchmark(folder, settings(), say=lambda line: None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                raise SystemExit(f"a run ended with {os.WEXITSTATUS(status)} after {kills} kills")
            return kills
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1


def main() -> None:
    """As the first lines of this file say."""
    torch.set_num_threads(1)
    what, folder = sys.argv[1], Path(sys.argv[2])
    try:
        if what == "kill":
            print(killed(folder, int(sys.argv[3])))
        else:
            run_benchmark(folder, settings())
    except D4KError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
