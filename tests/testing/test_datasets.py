"""The contract of a dataset passes what keeps it and fails, with a sentence, whatever breaks a clause of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from PIL import Image

from d4k import Sample
from d4k.datasets import FolderDataset
from d4k.testing import check_dataset


def picture(mode: str = "RGB") -> Callable[[], io.BytesIO]:
    stream = io.BytesIO()
    Image.new(mode, (4, 4)).save(stream, "PNG")
    return lambda: io.BytesIO(stream.getvalue())


@define
class Listed:
    """A dataset of a list."""

    samples: list[Any]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def sample(name: str, caption: Any = "c") -> Sample:
    return Sample(name, caption, picture())


class Changing(Listed):
    """Another sample on every call."""

    def __getitem__(self, index: int) -> Sample:
        self.samples[index] = sample(self.samples[index].id)
        return self.samples[index]  # type: ignore[no-any-return]


class Endless(Listed):
    """A dataset that goes round."""

    def __getitem__(self, index: int) -> Any:
        return self.samples[index % len(self.samples)]


class Failing(Listed):
    """No sample can be had."""

    def __getitem__(self, index: int) -> Any:
        raise KeyError(index)


class Strict(Listed):
    """The wrong error past the end."""

    def __getitem__(self, index: int) -> Any:
        return dict(enumerate(self.samples))[index]


def once() -> Callable[[], io.BytesIO]:
    """A stream that is made once, and read to its end by whoever comes first."""
    stream = picture()()
    return lambda: Lasting(stream)


class Lasting(io.BytesIO):
    """A view of a stream that has one position for all."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream.read())


def noisy() -> Callable[[], io.BytesIO]:
    """Another picture on every call."""
    colours = iter(("red", "green", "blue"))

    def opened() -> io.BytesIO:
        stream = io.BytesIO()
        Image.new("RGB", (4, 4), next(colours)).save(stream, "PNG")
        return io.BytesIO(stream.getvalue())

    return opened


def test_datasets_that_keep_the_contract_pass(photos: Path) -> None:
    """The built-in, and one whose pictures are streams."""
    check_dataset(FolderDataset(photos))
    check_dataset(Listed([sample("a"), sample("b")]))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Listed([]), "at least one picture"),
        (Listed([("a", "b", "c")]), "yields d4k.Sample"),
        (Listed([sample("a"), sample("a")]), "ids are unique"),
        (Listed([sample("a", caption=None)]), "captions are strings"),
        (Changing([sample("a")]), "asking twice gives the same sample"),
        (Listed([sample("")]), "ids are strings that are not empty"),
        (
            Listed([Sample("a", "c", Path("nowhere.png"))]),
            "opening the picture of sample 'a' must work; it raised DataError",
        ),
        (Listed([Sample("a", "c", once())]), "opening the picture of sample 'a' a second time, .* must work"),
        (Listed([Sample("a", "c", noisy())]), "is the same whenever it is opened"),
        (Failing([sample("a")]), "sample 0 of a dataset must work; it raised KeyError"),
        (Strict([sample("a")]), "an index past the end raises IndexError, got KeyError"),
        (Endless([sample("a")]), "past the end raises IndexError"),
    ],
)
def test_broken_datasets_fail(broken: Any, sentence: str) -> None:
    """One clause each."""
    with pytest.raises(AssertionError, match=sentence):
        check_dataset(broken)
