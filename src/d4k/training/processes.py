"""What the processes of a launch tell each other; in a launch of one, nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

__all__ = ["Processes"]


class Processes:
    """The processes that share a run, as this one sees them.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
    """

    def __init__(self) -> None:
        shared = dist.is_available() and dist.is_initialized()
        self.rank, self.count = (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What each process says, by rank; every process must ask, and pickles what it says."""
        if self.count == 1:
            return [value]
        said: list[Any] = [None] * self.count
        dist.all_gather_object(said, value)
        return said

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """The sums over the processes of a few numbers (N,); every process must ask."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.count > 1:
            dist.barrier()
