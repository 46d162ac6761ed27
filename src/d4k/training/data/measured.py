"""A dataset whose pictures are measured once, however often their sizes are asked for."""

from __future__ import annotations

from attrs import evolve

from d4k.errors import DataError
from d4k.images import picture_size
from d4k.protocols import Dataset, Sample

__all__ = ["Measured"]


class Measured:
    """Another dataset, whose samples know their size; of a million pictures, a second look would take minutes.

    Args:
        dataset: the other; a picture of it whose header cannot be read stays without a size.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.sizes: dict[int, tuple[int, int] | None] = {}

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.dataset)

    def __getitem__(self, index: int, /) -> Sample:
        """Picture `index`, with its size where that can be read."""
        sample = self.dataset[index]
        if sample.size is not None:
            return sample
        if index not in self.sizes:
            self.sizes[index] = _size(sample)
        return evolve(sample, size=self.sizes[index])


def _size(sample: Sample) -> tuple[int, int] | None:
    try:
        return picture_size(sample.source, label=sample.id, upright=True)
    except DataError:  # whoever needs the picture says so
        return None
