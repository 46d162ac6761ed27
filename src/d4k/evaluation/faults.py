"""Looking at files before they are measured: what each holds, and what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from attrs import evolve, frozen
from torch import Tensor

from d4k.errors import DataError
from d4k.images import MAX_PIXELS, open_picture, to_tensor
from d4k.images.facts import PictureFacts, is_cut_short, picture_facts

__all__ = ["LEFT_OUT", "MEASURED", "Flaw", "FlawError", "Look", "decode", "left_out_remark", "look_at"]

LEFT_OUT = ("missing", "empty", "unreadable", "truncated", "giant", "duplicate", "unmeasurable")
"""Kinds of faults that a score rests without."""

MEASURED = ("animated", "cmyk", "deep", "rotated")
"""Kinds of faults that are measured all the same, after the conversion that viewers make."""


@frozen
class Flaw:
    """What is wrong with a file.

    Args:
        kind: one of `LEFT_OUT` or `MEASURED`.
        reason: a sentence, which does not name the file.
    """

    kind: str
    reason: str


class FlawError(DataError):
    """A file cannot be measured.

    Attributes:
        flaw: why.
    """

    def __init__(self, flaw: Flaw, file: Path) -> None:
        self.flaw = flaw
        super().__init__(f"{file}: {flaw.reason}", file)


@frozen
class Look:
    """What a file holds, as far as it shows without decoding.

    Args:
        file: its path.
        sha256: of its bytes, in hexadecimal; empty where it cannot be read.
        width: pixels, upright; 0 where there is no picture.
        height: likewise.
        flaw: why it cannot be measured; None where it can.
        notes: what is to be known of it though it is measured.
    """

    file: Path
    sha256: str = ""
    width: int = 0
    height: int = 0
    flaw: Flaw | None = None
    notes: tuple[Flaw, ...] = ()

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height


def look_at(file: Path) -> Look:
    """Read a file's digest and header; whatever is wrong with it is in the result, and nothing is raised."""
    if os.fsencode(file).decode(errors="ignore") != str(file):
        return Look(
            file, flaw=Flaw("unreadable", "Its path is not UTF-8, so no file of scores can name it: rename it.")
        )
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
    except FileNotFoundError:
        return Look(file, flaw=Flaw("missing", "There is no such file."))
    except (OSError, ValueError) as error:
        return Look(file, flaw=Flaw("unreadable", f"It cannot be read: {getattr(error, 'strerror', None) or error}."))
    if not size:
        return Look(file, digest, flaw=Flaw("empty", "The file has no bytes."))
    try:
        facts = picture_facts(file)
    except DataError as error:
        return Look(file, digest, flaw=_undecodable(_content(file), error))
    found = Look(file, digest, facts.width, facts.height)
    if found.pixels > MAX_PIXELS:
        reason = f"It has {found.width}x{found.height} pixels, and at most {MAX_PIXELS:,} are read."
        return evolve(found, flaw=Flaw("giant", reason))
    return evolve(found, notes=_notes(facts))


def decode(look: Look) -> Tensor:
    """The pixels of a file, (3, H, W) uint8, from the very bytes whose digest was taken.

    Raises:
        FlawError: they cannot be decoded.
        DataError: the file was changed since it was looked at.
    """
    content = _content(look.file)
    if hashlib.sha256(content).hexdigest() != look.sha256:
        raise DataError(f"{look.file} was changed while it was measured; measure again", look.file)
    try:
        return to_tensor(open_picture(lambda: io.BytesIO(content), label=str(look.file)))
    except DataError as error:
        raise FlawError(_undecodable(content, error), look.file) from error


def left_out_remark(kinds: list[str], count: int, noun: str = "picture") -> str:
    """What a score says of files that it rests without.

    Args:
        kinds: of the faults, one a file.
        count: of all files.
        noun: what the files are.

    >>> left_out_remark(["truncated", "empty", "truncated"], 195)
    '3 of 195 pictures were left out: 2 truncated, 1 empty.'
    """
    named = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    were = "was" if len(kinds) == 1 else "were"
    return f"{len(kinds)} of {count} {noun}{'' if count == 1 else 's'} {were} left out: {named}."


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}; it was there a moment ago", file) from error


def _undecodable(content: bytes, error: DataError) -> Flaw:
    """Whether a file that cannot be decoded is cut short, or something else."""
    cause: Any = error.__cause__ or error
    if is_cut_short(content) or "truncated" in str(cause):
        return Flaw("truncated", "The file ends before its picture does.")
    if "cannot be read as" in str(error):
        return Flaw("unreadable", "It is no PNG, JPEG, WebP, TIFF or BMP picture.")
    reason = " ".join((str(cause) or type(cause).__name__).split())[:200].rstrip(".")
    return Flaw("unreadable", f"It cannot be decoded: {reason}.")


def _notes(facts: PictureFacts) -> tuple[Flaw, ...]:
    notes = []
    if facts.frames > 1:
        notes.append(Flaw("animated", f"It holds {facts.frames} pictures, of which the first is measured."))
    if facts.mode == "CMYK":
        notes.append(Flaw("cmyk", "Its colours are CMYK, and are converted to sRGB."))
    if facts.deep:
        notes.append(Flaw("deep", "It has more than 8 bits a channel, of which 8 are measured."))
    if facts.orientation != 1:
        reason = f"It is stored turned or mirrored (EXIF orientation {facts.orientation}), and is measured upright."
        notes.append(Flaw("rotated", reason))
    return tuple(notes)
