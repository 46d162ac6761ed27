"""What passes between the parts of a build: what sources name, what was seen in a file, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import field, frozen

__all__ = ["Decision", "Listed", "Outcome", "Seen"]

Outcome: TypeAlias = Literal["kept", "rejected", "broken", "apart"]
"""What became of a picture: it is in the dataset, a filter or a better duplicate keeps it out, it cannot be read, or it
has no licence and lies in `kept-apart`."""


@frozen
class Listed:
    """A picture as a source names it; nothing of its file was read.

    Args:
        id: unique in a build: the name of the source, and of the picture in it.
        path: its file; None where there is none, see `problem`.
        url: where it was, or is to be, downloaded from.
        licence: as the source gives it; None where it says nothing.
        author: likewise.
        source: where the picture comes from, in the source's words.
        text: its caption.
        problem: why there is no file.
    """

    id: str
    path: Path | None
    url: str | None = None
    licence: str | None = None
    author: str | None = None
    source: str | None = None
    text: str | None = None
    problem: str | None = None


@frozen
class Seen:
    """What is known of a picture's content.

    Args:
        sha256: of the file, in hexadecimal digits; empty where it cannot be read at all.
        bytes: of the file.
        width: pixels, upright; 0 where it is broken.
        height: likewise.
        format: of the file as Pillow names it, such as "JPEG".
        figures: name of a filter -> its figures.
        refused: name of a filter that could not measure the picture -> why.
        fingerprint: of its looks, by which duplicates are found, as text; empty where it is broken.
        broken: why it is no picture; None where it is one.
    """

    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    format: str = ""
    figures: Mapping[str, Mapping[str, float]] = field(factory=dict)
    refused: Mapping[str, str] = field(factory=dict)
    fingerprint: str = ""
    broken: str | None = None


@frozen
class Decision:
    """What became of a picture, and why.

    Args:
        listed: as its source names it, with the licence that counts.
        seen: its content.
        outcome: see `Outcome`.
        reason: in words; empty where it was kept.
        filter: name of the filter that rejected it, or "duplicates".
        duplicate_of: id of the picture that was preferred.
        split: "train" or "eval"; empty where it is not in the dataset.
        file_name: below the folder of the dataset, such as "train/images/tree-0123456789ab.jpg".
    """

    listed: Listed
    seen: Seen
    outcome: Outcome
    reason: str = ""
    filter: str = ""
    duplicate_of: str = ""
    split: str = ""
    file_name: str = ""
