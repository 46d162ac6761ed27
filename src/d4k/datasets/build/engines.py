"""How files are looked at: here, in a pool of processes, or on Ray."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any, Literal, TypeAlias, get_args

from d4k.datasets.build.extras import need_ray
from d4k.datasets.build.look import Looker, Task
from d4k.errors import ConfigError

__all__ = ["Engine", "check_engine", "default_workers", "look_at"]

Engine: TypeAlias = Literal["process", "ray"]
AHEAD = 4
"""Tasks a worker that are handed out at a time: enough that none waits, few enough to end soon on Ctrl-C."""


def default_workers() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_engine(engine: str) -> None:
    """Refuse an engine that does not exist, or is not installed.

    Raises:
        ConfigError: it is one of these.
    """
    if engine not in get_args(Engine):
        raise ConfigError(f"engine is {engine!r}; allowed: {', '.join(get_args(Engine))}")
    if engine == "ray":
        need_ray()


def look_at(tasks: Iterable[Task], looker: Looker, engine: Engine, workers: int) -> Iterator[dict[str, Any]]:
    """Look at files, and yield what was seen in each as soon as it was, in any order.

    Args:
        tasks: the files.
        looker: what looks; it is sent to the processes.
        engine: "process", or "ray" for Ray Data on the cluster that Ray finds.
        workers: processes at work; with 1 and the engine "process", this one.

    Raises:
        ConfigError: a process was ended from outside.
    """
    if engine == "ray":
        from d4k.datasets.build.on_ray import look_on_ray

        yield from look_on_ray(list(tasks), looker, workers)
    elif workers == 1:
        yield from map(looker, tasks)
    else:
        yield from _look_in_pool(iter(tasks), looker, workers)


def _look_in_pool(tasks: Iterator[Task], looker: Looker, workers: int) -> Iterator[dict[str, Any]]:
    pool = ProcessPoolExecutor(workers, _context(), _begin, (looker,))
    running: dict[Future[dict[str, Any]], Task] = {}
    try:
        while True:
            for task in islice(tasks, workers * AHEAD - len(running)):
                running[pool.submit(_look, task)] = task
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                del running[future]
    except BrokenProcessPool as error:
        names = ", ".join(task.path for task in running.values())
        raise ConfigError(
            f"a process that looked at one of {names} was ended from outside, perhaps for want of memory; run the "
            "command again to go on, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _context() -> Any:
    """Processes that are copies of one that has imported what all need, and holds no thread or lock of this one."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["d4k.datasets.build.look"])
    return context


_looker: deque[Callable[[Task], dict[str, Any]]] = deque(maxlen=1)


def _begin(looker: Looker) -> None:
    """In a new process: keep what looks, and end when the process that began it does."""
    _looker.append(looker)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)  # nobody is left to tell


def _look(task: Task) -> dict[str, Any]:
    return _looker[0](task)
