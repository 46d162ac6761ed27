"""What the processes of a launch tell each other; in a launch of one, nothing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from d4k.errors import ConfigError, D4KError, first_line
from d4k.files import atomic_folder
from d4k.upstream import get_cpu_distributed_information

__all__ = [
    "Processes",
    "StoppedElsewhereError",
    "check_found",
    "first_process",
    "meeting",
    "process_count",
    "shared_folder",
]

PATIENCE = timedelta(hours=2)
"""How long a process waits for another, which may be writing a checkpoint; a launcher ends all long before."""


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


def process_count() -> int:
    """How many processes share a launch: those of the launcher, or of the group that is open already."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(get_cpu_distributed_information().world_size)  # of any launcher, not of CPUs only


def first_process() -> bool:
    """Whether this is the process of the launch that speaks."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return int(get_cpu_distributed_information().rank) == 0


def check_found() -> None:
    """Refuse a launch whose processes cannot find each other.

    Raises:
        ConfigError: the launcher does not say where they meet.
    """
    count = process_count()
    if count > 1 and not dist.is_initialized() and "MASTER_ADDR" not in os.environ:
        raise ConfigError(
            f"a launcher started {count} processes that cannot find each other, since MASTER_ADDR is not set: start "
            "them with torchrun or accelerate launch"
        )


@contextmanager
def meeting(device: torch.device, patience: timedelta = PATIENCE) -> Iterator[None]:
    """A block in which the processes of a launch can speak to each other; of one process, a group of one.

    Args:
        device: where this process computes.
        patience: how long a process waits for another.

    Raises:
        StoppedElsewhereError: another process of the launch has ended.
    """
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if process_count() > 1:
        dist.init_process_group(backend, timeout=patience)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=patience)
    try:
        with warnings.catch_warnings():
            if not first_process():
                warnings.simplefilter("ignore")  # the first warns
            yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):  # what a process sees of another that has ended
            raise StoppedElsewhereError(f"another process of the launch has ended: {first_line(error)}") from error
        raise
    finally:
        dist.destroy_process_group()


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
