"""`captions.jsonl`: every answer about a picture, appended as it comes and never changed.

What a picture's text is follows from the log: the last word of a person, or else the last caption that can be used.
A text that the log does not know was written by somebody else, and stays.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from d4k.datasets.captions.entries import Entry, Source, entry_of
from d4k.errors import DataError, OutputError
from d4k.files import is_file, read_bytes, read_json_line

__all__ = ["CaptionLog"]


class CaptionLog:
    """The log of a dataset. Only one process may append at a time, and not while another reads.

    Args:
        path: of the file; it need not exist.

    Raises:
        DataError: a line in the middle cannot be read. A last line that was cut off is passed over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, list[Entry]] = {}
        self.cost = 0.0
        for entry in self._read():
            self._take(entry)

    def append(self, entry: Entry) -> None:
        """Add an answer, with its line on the disk when this returns.

        Raises:
            OutputError: the disk is full, or the log cannot be written; no part of the line is left.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                end, before = self._end(file.tell())
                file.truncate(end)
                try:
                    line = before + entry.line()
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}; what was captioned before is kept, "
                "run again to go on"
            ) from error
        self._take(entry)

    def asked(self, sha256: str, source: Source) -> bool:
        """Whether a picture has an answer of this source, be it a refusal."""
        key = source.key
        return any(entry.source.key == key for entry in self.entries.get(sha256, ()))

    def corrected(self, sha256: str) -> Entry | None:
        """The last word of a person about a picture."""
        return next((entry for entry in reversed(self.entries.get(sha256, [])) if entry.by_person), None)

    def last(self, sha256: str) -> Entry | None:
        """What decides the text: a person's last word, or the last usable caption, or the last answer at all."""
        found = self.entries.get(sha256, [])
        usable = next((entry for entry in reversed(found) if entry.caption.usable), None)
        return self.corrected(sha256) or usable or (found[-1] if found else None)

    def is_own(self, sha256: str, text: str | None) -> bool:
        """Whether a text of the metadata is of other origin than this log."""
        known = {name for entry in self.entries.get(sha256, ()) for name in (entry.caption.text, entry.replaces)}
        return bool(text) and text not in known

    def text(self, sha256: str, present: str | None) -> str | None:
        """The text that a picture is to have.

        Args:
            sha256: of the picture.
            present: the text that its metadata has.

        Returns:
            None where it is to have none.
        """
        last = self.last(sha256)
        if last is None or self.is_own(sha256, present):
            return present or None
        if last.caption.usable:
            return last.caption.text
        return None if last.by_person else present or None

    def dearest(self, source: Source) -> float | None:
        """Dollars that the dearest answer of a source cost; None where none is known."""
        key = source.key
        costs = [
            entry.caption.cost
            for entries in self.entries.values()
            for entry in entries
            if entry.caption.cost is not None and entry.source.key == key
        ]
        return max(costs, default=None)

    def _take(self, entry: Entry) -> None:
        self.entries.setdefault(entry.sha256, []).append(entry)
        self.cost += entry.caption.cost or 0.0

    def _read(self) -> Iterator[Entry]:
        if not is_file(self.path, DataError):
            return
        *whole, rest = read_bytes(self.path, DataError).split(b"\n")
        for number, line in enumerate(whole, 1):
            if line.strip():
                yield entry_of(read_json_line(line, self.path, number), self.path, number)
        if (last := self._unfinished(rest)) is not None:
            yield last

    def _unfinished(self, line: bytes) -> Entry | None:
        """The entry in a last line that has no end; None where it was cut off, by a kill in the middle of writing."""
        with suppress(DataError):
            return entry_of(read_json_line(line, self.path, 0), self.path, 0) if line.strip() else None
        return None

    def _end(self, size: int) -> tuple[int, bytes]:
        """How much of the file is to stay, and what is to be written before the next line."""
        if not size:
            return 0, b""
        with self.path.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) == b"\n":
                return size, b""
            file.seek(0)
            content = file.read()
        start = content.rfind(b"\n") + 1
        return (start, b"") if self._unfinished(content[start:]) is None else (size, b"\n")
