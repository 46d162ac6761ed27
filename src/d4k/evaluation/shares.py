"""Several processes of one launch observe a share of the pictures each, and none waits for one that has died.

While a process observes its share it holds a lock of the operating system on a hidden file beside the rows. The first
process observes its own, and then waits for the others' rows for as long as their locks are held. The system releases
the lock of a process that ends in any way: the first process then observes what that one has left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from filelock import FileLock, Timeout

from d4k.errors import OutputError
from d4k.evaluation.observe import Task
from d4k.locks import is_held, output_errors, remove_lock
from d4k.store import Store, digest
from d4k.upstream import get_cpu_distributed_information

__all__ = ["Process", "share_out", "this_process"]

GRACE = 60.0
"""Seconds that a process may begin later than the first, before that one observes its share, too."""

POLL = 0.2
"""Seconds between two looks at what is there."""

TAKEN = 2.0
"""Seconds after which a lock counts as held: the first process looks at one by holding it for a moment."""

Observe = Callable[[Sequence[Task]], None]


@frozen
class Process:
    """One of the processes of a launch.

    Args:
        rank: its number, from 0.
        count: of all.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process scores and writes."""
        return self.rank == 0


def this_process() -> Process:
    """This process, as its launcher says: torchrun, `accelerate launch`, or any that sets RANK and WORLD_SIZE."""
    found = get_cpu_distributed_information()  # of any launcher, not of CPUs only
    return Process(found.rank, max(1, found.world_size))


def share_out(tasks: Sequence[Task], store: Store, process: Process, observe: Observe) -> None:
    """Observe this process's share; in the first, return when the rows of all shares are there.

    Args:
        tasks: the same in every process.
        store: that all of them see.
        process: this one.
        observe: observes what is missing of some tasks, and keeps the rows.

    Raises:
        OutputError: another launch is measuring the same pictures into this store.
    """
    if process.count == 1:
        observe(tasks)
        return
    launch, begun = digest([list(task.wanted) for task in tasks], process.count), time.monotonic()
    shares = [tasks[rank :: process.count] for rank in range(process.count)]
    locks = [store.folder / f".{launch}-{rank}.lock" for rank in range(process.count)]
    with _claimed(locks[process.rank]) as free:
        if free:
            observe(shares[process.rank])
        elif process.first:
            raise OutputError(
                f"another d4k evaluate is measuring these pictures into {store.folder} at this moment; wait until it "
                "ends, or name another folder"
            )
    for rank in range(1, process.count) if process.first else ():
        _complete(shares[rank], store, locks[rank], begun, observe)


def _complete(share: Sequence[Task], store: Store, lock: Path, begun: float, observe: Observe) -> None:
    """Wait until the rows of another's share are there; observe what is missing where nobody does."""
    keys = [key for task in share for key in task.wanted]
    while store.missing(keys):
        came = lock.exists()
        if (came and is_held(lock)) or (not came and time.monotonic() - begun < GRACE):
            time.sleep(POLL)
            continue
        with _claimed(lock) as free:
            if free:
                observe(share)


@contextmanager
def _claimed(file: Path) -> Iterator[bool]:
    """Hold a lock, or yield False where another process does; it stays as it is where the block does not end well."""
    lock = FileLock(file)
    with output_errors(file.parent):
        try:
            lock.acquire(timeout=TAKEN, poll_interval=POLL)
        except Timeout:
            yield False
            return
    try:
        yield True
    except BaseException:
        lock.release(force=True)  # its file tells the first process that this one has come, and has gone
        raise
    remove_lock(lock)
