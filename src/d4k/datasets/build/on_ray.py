"""The scan as a map of Ray Data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from d4k.datasets.build.look import Looker, Task

__all__ = ["look_on_ray"]

BLOCK = 16
"""Files at most that are looked at before what was seen in them comes back and is kept."""


def look_on_ray(tasks: Sequence[Task], looker: Looker, workers: int) -> Iterator[dict[str, Any]]:
    """Look at files on a Ray cluster; all its machines see them under the same paths.

    Args:
        tasks: the files.
        looker: what looks; it is sent to the workers.
        workers: at work in parallel, each with one processor.
    """
    import ray

    if not tasks:
        return
    rows = [{"task": json.dumps([task.path, task.decode, task.keys])} for task in tasks]
    blocks = max(min(len(rows), 4 * workers), -(-len(rows) // BLOCK))
    lines = ray.data.from_items(rows, override_num_blocks=blocks).map(_Look(looker), concurrency=workers)
    for row in lines.iter_rows():
        yield json.loads(row["line"])


class _Look:
    """One row of a table to one row. Lines pass as JSON, in which numbers and their types stay as they are."""

    def __init__(self, looker: Looker) -> None:
        self.looker = looker

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        path, decode, keys = json.loads(row["task"])
        return {"line": json.dumps(self.looker(Task(path, decode, tuple(keys))))}
