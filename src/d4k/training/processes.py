"""What the processes of a launch tell each other; in a launch of one, nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from d4k.errors import D4KError, first_line
from d4k.files import atomic_folder

__all__ = ["Processes", "StoppedElsewhereError", "shared_folder"]


class StoppedElsewhereError(D4KError):
    """Another process of the launch has stopped, and says itself why."""

    elsewhere = True


class Processes:
    """The processes that share a run, as this one sees them.

    Every method but the properties is a question that every process must ask, in the same order.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
    """

    def __init__(self) -> None:
        shared = dist.is_available() and dist.is_initialized()
        self.rank, self.count = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)
        # a group that another has opened may speak through GPUs alone
        gpu = shared and "cpu" not in str(dist.get_backend_config())
        self._flags = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What each process says, by rank; it is pickled on the way."""
        if self.count == 1:
            return [value]
        said: list[Any] = [None] * self.count
        dist.all_gather_object(said, value)
        return said

    def tell(self, value: Any) -> Any:
        """What the first process says; the others' values are of no account."""
        if self.count == 1:
            return value
        said = [value]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """The sums over the processes of a few numbers (N,)."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that ends well in every process, or in none: nobody waits for one that has stopped.

        The block must hold no other question of this class, since a process that has stopped does not come to it.

        Raises:
            StoppedElsewhereError: the block ended well here, and not in another process, or in one of lower rank, too.
        """
        fault: Exception | None = None
        try:
            yield
        except Exception as error:
            if self.count == 1:
                raise
            fault = error
        if self.count == 1:
            return
        if not self.sums(torch.tensor([float(fault is not None)], device=self._flags)).item():
            return
        said = self.gather(None if fault is None else f"{type(fault).__name__}: {first_line(fault)}")
        first = next(rank for rank, words in enumerate(said) if words is not None)
        if fault is not None and first == self.rank:
            raise fault
        raise StoppedElsewhereError(f"process {first} stopped: {said[first]}") from fault


@contextmanager
def shared_folder(path: Path, processes: Processes) -> Iterator[Path]:
    """`d4k.files.atomic_folder` that every process writes into; it appears once all of them have ended well.

    Args:
        path: the folder to write, on a disk that all processes see.
        processes: each of which must come here; their blocks hold no question of each other.

    Raises:
        OutputError: the disk is full or the folder cannot be written; `path` is as it was before.
    """
    with ExitStack() as stack:
        temporary = None
        with processes.together():
            if processes.first:
                temporary = stack.enter_context(atomic_folder(path))
        temporary = processes.tell(temporary)
        with processes.together():
            yield temporary
        with processes.together():
            stack.close()
