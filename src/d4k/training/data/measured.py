"""A dataset whose pictures are measured once, however often their sizes are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import evolve

from d4k.errors import DataError
from d4k.images import picture_size
from d4k.protocols import Dataset, Sample
from d4k.training.data.buckets import Size

__all__ = ["Measured"]

READERS = 16
"""Files that are read at once."""

BLOCK = 1024
"""Samples that are looked at before the first of them is judged."""


class Measured:
    """Another dataset, whose samples know their size; of a million pictures, a second look would take minutes.

    Args:
        dataset: the other; a picture of it whose header cannot be read stays without a size.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.sizes: dict[int, Size | None] = {}

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        """Picture `index`, with its size where that can be read."""
        sample = self._known(index)
        if sample.size is not None or index in self.sizes:
            return sample
        return evolve(sample, size=self._keep(index, _size(sample)))

    def measure(self) -> Iterator[tuple[Sample, Size | DataError]]:
        """Each sample and its size, or why that cannot be read; many files at once, since a network answers late."""
        with ThreadPoolExecutor(READERS) as pool:
            for first in range(0, len(self), BLOCK):
                numbers = range(first, min(first + BLOCK, len(self)))
                samples = [self._known(index) for index in numbers]
                # a dataset's own callable may not be made for several threads
                coming = [pool.submit(_size, s) if isinstance(s.source, Path) else None for s in samples]
                for index, sample, size in zip(numbers, samples, coming, strict=True):
                    found = _size(sample) if size is None else size.result()
                    if sample.size is None:
                        self._keep(index, found)
                    yield sample, found

    def _known(self, index: int) -> Sample:
        """Picture `index`, with its size where that is known already."""
        sample, size = self.dataset[index], self.sizes.get(index)
        return sample if size is None else evolve(sample, size=size)

    def _keep(self, index: int, found: Size | DataError) -> Size | None:
        self.sizes[index] = None if isinstance(found, DataError) else found  # whoever needs the picture says so
        return self.sizes[index]


def _size(sample: Sample) -> Size | DataError:
    try:
        return sample.size or picture_size(sample.source, label=sample.id, upright=True)
    except DataError as error:
        return error
