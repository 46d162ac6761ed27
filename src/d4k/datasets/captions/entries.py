"""One answer in the log of captions: what was said of a picture, by whom, when, and what was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from d4k.errors import DataError
from d4k.values import Caption

__all__ = ["FORMAT", "Entry", "Source", "entry_of", "now"]

FORMAT = 1
"""Of the lines of the log: raised when an older d4k must not read them."""

TYPES: Mapping[str, tuple[type, ...]] = {
    "sha256": (str,),
    "file": (str,),
    "text": (str,),
    "refused": (bool,),
    "reason": (str,),
    "captioner": (str, type(None)),
    "identity": (dict,),
    "instruction": (str,),
    "model": (str,),
    "tokens_in": (int,),
    "tokens_out": (int,),
    "cost": (int, float, type(None)),
    "date": (str,),
    "replaces": (str, type(None)),
}


@frozen
class Source:
    """Who was asked what: answers of equal sources are not asked for twice.

    Args:
        captioner: registered name; None is a person.
        identity: of the captioner.
        instruction: that it was given.
    """

    captioner: str | None
    identity: Mapping[str, Any] = field(factory=dict)
    instruction: str = ""

    @property
    def key(self) -> str:
        """Equal for equal sources."""
        return json.dumps([self.captioner, self.instruction, dict(self.identity)], sort_keys=True)


@frozen
class Entry:
    """A line of the log.

    Args:
        sha256: of the picture's file, in hexadecimal.
        file: where it lay, below the dataset's folder.
        source: who was asked what.
        caption: what was said.
        date: when, in UTC, such as "2025-01-31T12:00:00Z".
        replaces: a text of other origin that the metadata had, and that gives way to this.
    """

    sha256: str
    file: str
    source: Source
    caption: Caption
    date: str
    replaces: str | None = None

    @property
    def by_person(self) -> bool:
        """Whether a person wrote it."""
        return self.source.captioner is None

    def line(self) -> bytes:
        """As JSON, with the line's end."""
        row = {
            "format": FORMAT,
            "sha256": self.sha256,
            "file": self.file,
            **attrs.asdict(self.caption),
            "captioner": self.source.captioner,
            "identity": dict(self.source.identity),
            "instruction": self.source.instruction,
            "date": self.date,
            "replaces": self.replaces,
        }
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def now() -> str:
    """The time, in UTC and to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def entry_of(row: Mapping[str, Any], path: Path, number: int) -> Entry:
    """The entry that a line of the log holds.

    Args:
        row: the object of the line.
        path: of the log, for messages.
        number: of the line, from 1.

    Raises:
        DataError: a key is missing or of the wrong type, or a newer d4k wrote the line.
    """
    if row.get("format") != FORMAT:
        raise DataError(
            f"{path}, line {number} has the format {row.get('format')!r}, and this d4k reads format {FORMAT}; "
            "use the d4k that wrote it, or remove the line",
            path,
            number,
        )
    for name, types in TYPES.items():
        value = row.get(name)
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            said = "is missing" if name not in row else f"is {value!r}"[:200]
            raise DataError(f"{path}, line {number}: '{name}' {said}; mend or remove the line", path, number)
    caption = Caption(**{f.name: row[f.name] for f in attrs.fields(Caption)})
    source = Source(row["captioner"], row["identity"], row["instruction"])
    return Entry(row["sha256"], row["file"], source, caption, row["date"], row["replaces"])
