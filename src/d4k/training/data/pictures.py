"""Which pictures of a dataset are trained on, each in its bucket; which are held out, and which left out and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import evolve, field, frozen

from d4k.config import RunConfig
from d4k.errors import ConfigError, DataError
from d4k.protocols import Backbone, Dataset, Sample
from d4k.seeds import numbered_seed
from d4k.training.data.buckets import Reason, Size, bucket_of, bucket_sizes, nearest_size
from d4k.training.data.measured import Measured

__all__ = ["Bucket", "Chosen", "LeftOut", "choose_pictures"]


@frozen
class Bucket:
    """Pictures that are cut to one size.

    Args:
        width: in pixels.
        height: in pixels.
        pictures: their numbers in the dataset, rising; those that are trained on.
        held_out: likewise; those that the loss is measured on and that are never trained on.
    """

    width: int
    height: int
    pictures: tuple[int, ...] = ()
    held_out: tuple[int, ...] = ()

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return self.width, self.height


@frozen
class LeftOut:
    """A picture that is not trained on.

    Args:
        id: of the picture.
        reason: it is smaller than its bucket (`small`), far from the shape of every bucket (`shape`), or its header
            cannot be read (`unreadable`).
        why: the same of this picture in words, such as "3000x2000, smaller than 4096x4096".
    """

    id: str
    reason: Reason | Literal["unreadable"]
    why: str


@frozen(eq=False)
class Chosen:
    """Which pictures of a dataset are trained on.

    Args:
        dataset: that they are of.
        buckets: those that have a picture, in the order of `bucket_sizes`.
        left_out: in the order of the dataset.
        enlarged: ids of the pictures that are smaller than their bucket, and enlarged to fill it.
        digest: of what is trained on: number, id, size, caption and bucket of each picture, held out or not, and how
            many pictures the dataset has. Equal digests give equal runs, as long as the pictures' bytes are the same.
    """

    dataset: Dataset
    buckets: tuple[Bucket, ...]
    left_out: tuple[LeftOut, ...] = ()
    enlarged: tuple[str, ...] = ()
    digest: str = field(default="", kw_only=True)

    @property
    def count(self) -> int:
        """The number of pictures that are trained on."""
        return sum(len(bucket.pictures) for bucket in self.buckets)

    @property
    def largest(self) -> Size:
        """Width and height of the bucket with the most pixels, which decides how much memory a step takes."""
        return max((bucket.size for bucket in self.buckets), key=lambda size: size[0] * size[1])

    def without(self, faults: Mapping[int, str], contents: str = "") -> Chosen:
        """What is left when some pictures turn out not to be readable.

        Args:
            faults: number in the dataset -> a sentence that says why.
            contents: a digest of what the pictures hold, where it is known; it becomes part of `digest`.

        Raises:
            DataError: nothing is left.
        """
        left = tuple(
            evolve(
                bucket,
                pictures=tuple(index for index in bucket.pictures if index not in faults),
                held_out=tuple(index for index in bucket.held_out if index not in faults),
            )
            for bucket in self.buckets
        )
        buckets = tuple(bucket for bucket in left if bucket.pictures or bucket.held_out)
        if not any(bucket.pictures for bucket in buckets):
            raise DataError(f"nothing is left to train on: none of {_pictures(self.count)} can be encoded")
        found = tuple(LeftOut(self.dataset[index].id, "unreadable", why) for index, why in sorted(faults.items()))
        digest = hashlib.sha256(json.dumps([self.digest, sorted(faults), contents]).encode()).hexdigest()
        return evolve(self, buckets=buckets, left_out=(*self.left_out, *found), digest=digest)

    def summary(self) -> str:
        """What is trained on in words, for a person who is about to start a run."""
        parts = [f"{len(bucket.pictures)} at {bucket.width}x{bucket.height}" for bucket in self.buckets]
        held = sum(len(bucket.held_out) for bucket in self.buckets)
        lines = [f"{_pictures(self.count)} to train on: {', '.join(parts)}"]
        lines += [f"{_pictures(held)} held out to measure the loss on"] if held else []
        return ". ".join([*lines, *self.warnings()])

    def warnings(self) -> list[str]:
        """What a person should know before the first step, a sentence each: what is left out, what is enlarged."""
        total = len(self.dataset)
        found = []
        if self.left_out:
            reasons = ", ".join(_counted(self.left_out, [bucket.size for bucket in self.buckets]))
            first = self.left_out[0]
            found.append(
                f"{len(self.left_out)} of {_pictures(total)} are left out: {reasons}; "
                f"the first is '{first.id}' ({first.why})"
            )
        if self.enlarged:
            found.append(
                f"{len(self.enlarged)} of {_pictures(total)} are smaller than what they are cut to and are enlarged, "
                f"which teaches the model blur; the first is '{self.enlarged[0]}'"
            )
        return found


def choose_pictures(dataset: Dataset, backbone: Backbone, config: RunConfig) -> Chosen:
    """Look at the size of every picture, and settle which of them are trained on, each in its bucket.

    Args:
        dataset: captioned pictures; the header of one is read where its sample has no size.
        backbone: loaded.
        config: of the run: `data`, and what of `validation` holds pictures out.

    Returns:
        The same for the same dataset and configuration in every process, whatever the seed of the run.

    Raises:
        DataError: nothing is left to train on, or a header cannot be read and `data.unreadable` is "stop"; the message
            names all such pictures.
        ConfigError: a size does not suit the backbone, or more pictures are held out than there are.
    """
    if len(dataset) == 0:
        raise DataError("the dataset is empty: there is nothing to train on")
    sizes = bucket_sizes(backbone, config.data)
    choice = _Choice(sizes, config)
    measured = dataset if isinstance(dataset, Measured) else Measured(dataset)
    for index, (sample, size) in enumerate(measured.measure()):
        choice.add(index, sample, size)
    if choice.unreadable and config.data.unreadable == "stop":
        raise DataError(
            f"{_pictures(len(choice.unreadable))} cannot be read: {'; '.join(choice.unreadable)}. "
            "Replace them, or set data.unreadable = 'skip' to train without them"
        )
    if not any(choice.pictures):
        raise DataError(_nothing_left(choice.left_out, sizes, len(dataset)))
    return choice.result(dataset)


class _Choice:
    """The pictures that were looked at so far."""

    def __init__(self, sizes: Sequence[Size], config: RunConfig) -> None:
        self.sizes, self.config = sizes, config
        self.pictures: list[list[int]] = [[] for _ in sizes]
        self.ranks: dict[int, int] = {}
        self.left_out: list[LeftOut] = []
        self.enlarged: list[str] = []
        self.unreadable: list[str] = []
        self.hash = hashlib.sha256()

    def add(self, index: int, sample: Sample, size: Size | DataError) -> None:
        if isinstance(size, DataError):
            self.unreadable.append(str(size))
            self.left_out.append(LeftOut(sample.id, "unreadable", str(size)))
            return
        data = self.config.data
        bucket = bucket_of(size, self.sizes, enlarge=data.enlarge, any_shape=data.buckets == "off")
        if isinstance(bucket, str):
            self.left_out.append(LeftOut(sample.id, bucket, _why(size, bucket, self.sizes)))
            return
        if size[0] < self.sizes[bucket][0] or size[1] < self.sizes[bucket][1]:
            self.enlarged.append(sample.id)
        self.pictures[bucket].append(index)
        if self._held_out:
            assert self.config.validation is not None
            self.ranks[index] = numbered_seed(self.config.validation.seed, f"holdout {sample.id}", 0)
        row = [index, sample.id, list(size), sample.caption, list(self.sizes[bucket])]
        self.hash.update(json.dumps(row).encode() + b"\n")

    @property
    def _held_out(self) -> int:
        return 0 if self.config.validation is None else self.config.validation.holdout

    def result(self, dataset: Dataset) -> Chosen:
        held, count = self._held_out, sum(map(len, self.pictures))
        if held >= count:
            raise ConfigError(
                f"validation.holdout = {held} leaves nothing to train on: {_pictures(count)} can be used; hold out "
                "fewer, or 0 for none"
            )
        # by id, so that a picture stays held out when others are added to the dataset
        apart = set(sorted(self.ranks, key=lambda index: (self.ranks[index], index))[:held])
        self.hash.update(json.dumps([len(dataset), sorted(apart)]).encode())
        buckets = (
            Bucket(*size, tuple(i for i in found if i not in apart), tuple(i for i in found if i in apart))
            for size, found in zip(self.sizes, self.pictures, strict=True)
            if found
        )
        return Chosen(dataset, tuple(buckets), tuple(self.left_out), tuple(self.enlarged), digest=self.hash.hexdigest())


def _why(size: Size, reason: str, sizes: Sequence[Size]) -> str:
    nearest = nearest_size(size, sizes)
    said = "smaller than" if reason == "small" else "more than twice as wide or as high for its area as"
    return f"{size[0]}x{size[1]}, {said} {nearest[0]}x{nearest[1]}"


def _counted(left_out: Iterable[LeftOut], sizes: Sequence[Size]) -> Iterator[str]:
    counts = Counter(picture.reason for picture in left_out)
    one = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else "every bucket of their shape"
    words: dict[Reason | Literal["unreadable"], str] = {
        "small": f"smaller than {one}",
        "shape": "too wide or too high for every bucket",
        "unreadable": "unreadable",
    }
    return (f"{counts[reason]} {said}" for reason, said in words.items() if counts[reason])


def _nothing_left(left_out: Sequence[LeftOut], sizes: Sequence[Size], total: int) -> str:
    first = left_out[0]
    return (
        f"nothing is left to train on: {total} of {_pictures(total)} are left out: "
        f"{', '.join(_counted(left_out, sizes))}; the first is '{first.id}' ({first.why}). Choose a smaller size with "
        "data.width and data.height, add data.buckets = 'auto' for other shapes, or set data.enlarge = true to enlarge "
        "small pictures, which teaches the model blur"
    )


def _pictures(count: int) -> str:
    return f"{count} picture" if count == 1 else f"{count} pictures"
