"""Time and memory of a large picture in stages, beside the same picture sampled directly.

Each way is the command that a person would type, in a fresh process, whose peak memory is what the operating system
says of it (`getrusage`). Both are asked for one picture of `tiny-sd3` with interpolated positions. Printed are the
commands, a table, and the ratio of the two; `--only stages` leaves the direct way out.

    python benchmarks/staged_sampling.py [--size 1024] [--model tiny-sd3] [--only stages] [--keep FOLDER]

2048, the size of the figures in the docs, takes minutes for each way on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

PROMPT = "a tabby cat"
WAYS = {"stages": ["--stages", "auto"], "direct": []}
UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in a unit of `ru_maxrss`."""


def command(options: argparse.Namespace, way: str, picture: Path) -> list[str]:
    """What follows `d4k` on the command line."""
    size = ["--width", str(options.size), "--height", str(options.size)]
    model = ["--model", options.model, "--option", "positions=interpolate", "--device", "cpu", "--seed", "1"]
    return ["generate", PROMPT, *WAYS[way], *size, *model, "--output", str(picture)]


def measured(arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak bytes of one run of d4k.

    This process imports nothing large: on Linux the peak of a child begins with the memory of its parent.

    Raises:
        SystemExit: it failed.
    """
    start = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-m", "d4k", *arguments], os.environ)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"d4k {shlex.join(arguments)} failed")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * UNIT


def main() -> None:
    """Measure both ways and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="pixels a side")
    parser.add_argument("--model", default="tiny-sd3", help="registered name")
    parser.add_argument("--only", choices=list(WAYS), help="one way alone")
    parser.add_argument("--keep", type=Path, help="folder that the pictures are left in")
    options = parser.parse_args()
    print(f"d4k {version('d4k')}, torch {version('torch')}, {os.cpu_count()} cores, {platform.machine()}")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in [options.only] if options.only else WAYS:
            picture = Path(folder) / f"{options.model}-{options.size}-{way}.png"
            arguments = command(options, way, picture)
            print(f"d4k {shlex.join(arguments)}", flush=True)
            found[way] = measured(arguments)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, options.keep)
    print(f"\n| {options.model}, {options.size}x{options.size} | seconds | processor seconds | peak memory |")
    print("| --- | ---: | ---: | ---: |")
    for way, (seconds, used, peak) in found.items():
        print(f"| {way} | {seconds:.0f} | {used:.0f} | {peak / 1e9:.2f} GB |")
    if len(found) == len(WAYS):
        time_ratio, memory_ratio = (found["stages"][place] / found["direct"][place] for place in (1, 2))
        print(f"\nstages / direct: processor time {time_ratio:.2f}, peak memory {memory_ratio:.2f}")


if __name__ == "__main__":
    main()
