"""Peak memory of measuring 500, 2,000 and 10,000 pictures, and how many files their rows leave.

    python benchmarks/evaluation_memory.py [--metric NAME ...]

Each number is measured in a process of its own, on flat pictures of 256x256 pixels (196,608 bytes decoded), first
without rows and then with all of them. The pictures of the last number would be 1.9 GB if they were held.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

COUNTS = (500, 2_000, 10_000)
SIDE = 256


def main() -> None:
    """Print a line for each number of pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metric", action="append", default=None)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    metrics = given.metric or ["glcm", "compression-ratio"]
    if given.measure:
        measure(Path(given.measure[0]), Path(given.measure[1]), metrics)
        return
    print(f"{'pictures':>8} {'first MiB':>10} {'seconds':>8} {'again MiB':>10} {'seconds':>8} {'files':>6}")
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            pictures, output = Path(folder, "pictures"), Path(folder, "scores")
            make(pictures, count)
            names = [part for name in metrics for part in ("--metric", name)]
            command = [sys.executable, __file__, *names, "--measure", str(pictures), str(output)]
            first, again = (subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(2))
            files = sum(path.is_file() for path in output.rglob("*"))
            print(f"{count:>8} {first.stdout.strip():>19} {again.stdout.strip():>19} {files:>6}", flush=True)


def make(folder: Path, count: int) -> None:
    """Write pictures of which no two are alike."""
    folder.mkdir()
    for number in range(count):
        picture = Image.new("RGB", (SIDE, SIDE), (number % 256, number // 256, 7))
        picture.save(folder / f"{number:05d}.png", compress_level=1)


def measure(pictures: Path, output: Path, names: list[str]) -> None:
    """Measure a folder in this process, and print its peak memory and the seconds."""
    from d4k.evaluation import Measuring, find_subjects, metrics_by_name
    from d4k.evaluation import measure as measure_set

    begun = time.monotonic()
    settings = Measuring(output=output, resamples=100, device="cpu")
    measure_set(find_subjects(pictures), metrics_by_name(names), settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:10.0f} {time.monotonic() - begun:8.1f}")


if __name__ == "__main__":
    main()
