"""Which pictures a batch is made of: a function of the seed and the number of the batch, and of nothing else.

The processes of a launch take the batches in turn: process p of W takes batch `m * W + p` as its m-th. So W processes
see in a step what one process sees with W times the accumulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from attrs import frozen
from torch import Tensor

from d4k.errors import DataError
from d4k.seeds import numbered_seed

__all__ = ["Order", "Turn"]

CACHED_EPOCHS = 4


@frozen
class Turn:
    """The pictures of one batch.

    Args:
        bucket: that they are all of.
        pictures: number of each picture, as the buckets give it.
        epochs: how often each picture was trained before.
    """

    bucket: int
    pictures: tuple[int, ...]
    epochs: tuple[int, ...]


class Order:
    """The batches of a run in their order.

    Every bucket has a stream of its own: epoch after epoch, each its pictures in another order. Batches are cut from
    that stream, so one at the end of an epoch may be filled up from the next; no picture is left out or comes twice.
    Each epoch takes from every bucket the batches that end in it, the buckets mixed at random.

    Args:
        buckets: the pictures of each bucket by their number in the dataset.
        seed: of the run.
        batch_size: pictures in a batch, at least 1.

    Raises:
        DataError: there is no picture.

    >>> [Order([[7, 8, 9]], seed=0, batch_size=2).turn(number).epochs for number in range(3)]
    [(0, 0), (0, 1), (1, 1)]
    """

    def __init__(self, buckets: Sequence[Sequence[int]], seed: int, batch_size: int) -> None:
        self.seed, self.batch_size = seed, batch_size
        self.counts = [len(pictures) for pictures in buckets]
        if sum(self.counts) == 0:
            raise DataError("there is no picture to train on")
        pairs = sorted((picture, bucket) for bucket, pictures in enumerate(buckets) for picture in pictures)
        self._pictures, self._bucket = torch.tensor(pairs, dtype=torch.int64).T.contiguous()
        self._streams = lru_cache(CACHED_EPOCHS)(self._make_streams)
        self._mixture = lru_cache(CACHED_EPOCHS)(self._make_mixture)

    def turn(self, number: int) -> Turn:
        """The pictures of batch `number` of the run, counted over all processes."""
        epoch = self.epoch_of(number)
        buckets, earlier = self._mixture(epoch)
        place = number - self.batches_before(epoch)
        bucket = int(buckets[place])
        first = (self._ended(bucket, epoch) + int(earlier[place])) * self.batch_size
        where = [divmod(at, self.counts[bucket]) for at in range(first, first + self.batch_size)]
        pictures = tuple(int(self._streams(epoch)[bucket][place]) for epoch, place in where)
        return Turn(bucket, pictures, tuple(epoch for epoch, _ in where))

    def batches_before(self, epoch: int) -> int:
        """The batches of all epochs before one."""
        return sum(self._ended(bucket, epoch) for bucket in range(len(self.counts)))

    def epoch_of(self, number: int) -> int:
        """The epoch that batch `number` ends in."""
        low, high = 0, 1
        while self.batches_before(high) <= number:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.batches_before(middle) <= number else (low, middle)
        return low

    def _ended(self, bucket: int, epoch: int) -> int:
        """The batches of a bucket that end before an epoch."""
        return epoch * self.counts[bucket] // self.batch_size

    def _make_streams(self, epoch: int) -> list[Tensor]:
        """The pictures of each bucket in the order of an epoch: one order of all pictures, parted by bucket."""
        order = _shuffled(len(self._pictures), numbered_seed(self.seed, "order", epoch))
        pictures, bucket = self._pictures[order], self._bucket[order]
        return [pictures[bucket == number] for number in range(len(self.counts))]

    def _make_mixture(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The bucket of each batch of an epoch, and how many batches of that bucket the epoch has before it."""
        counts = [self._ended(bucket, epoch + 1) - self._ended(bucket, epoch) for bucket in range(len(self.counts))]
        buckets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        buckets = buckets[_shuffled(len(buckets), numbered_seed(self.seed, "batches", epoch))]
        earlier = torch.zeros_like(buckets)
        for bucket, count in enumerate(counts):
            earlier[buckets == bucket] = torch.arange(count)
        return buckets, earlier


def _shuffled(count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
