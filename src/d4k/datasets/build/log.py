"""The log of a scan: what was seen in each picture, one line at a time, so that nothing is looked at twice.

    {"format": 1}
    {"file": "/photos/a.jpg", "size": 9, "mtime_ns": 1, "inode": 2, "sha256": "ab...", "seen": {"width": 8, ...}}

A line is written whole before the next picture is taken up. What a killed process left of its last line is cut off when
the log is opened again. Figures hang on the digest of a file and not on its name; a name leads to a digest for as long
as size, modification time and inode are those that were noted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from attrs import define, field, frozen

from d4k.errors import DataError
from d4k.locks import output_errors

__all__ = ["FORMAT", "Facts", "ScanLog"]

FORMAT = 1


@frozen
class Facts:
    """What tells that a file has not changed.

    Args:
        size: bytes.
        mtime_ns: time of the last change of its content, in nanoseconds.
        inode: number of the file in its file system.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Facts:
        """Those of a file now.

        Raises:
            OSError: it is not there, or may not be looked at.
        """
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


@define
class ScanLog:
    """What is known of files and pictures.

    Attributes:
        files: path -> what was noted of the file, and the digest of its content.
        pictures: digest -> what was seen in it: "width", "height", "format", "bytes", "figures" and "refused" by key,
            "fingerprints" by key, and "broken" by key.
    """

    files: dict[str, tuple[Facts, str]] = field(factory=dict)
    pictures: dict[str, dict[str, Any]] = field(factory=dict)
    _stream: BinaryIO | None = None

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[ScanLog]:
        """Read a log and go on with it, or begin one.

        Args:
            path: the file; its folder is there.

        Raises:
            DataError: it was written by a newer d4k, or is no log.
            OutputError: it cannot be written.
        """
        with output_errors(path), path.open("ab+") as stream:
            log = cls(stream=stream)
            log._read(path)
            yield log
            os.fsync(stream.fileno())

    def digest(self, path: str, facts: Facts) -> str | None:
        """The digest of a file, or None where it is not known or the file may have changed."""
        noted = self.files.get(path)
        return noted[1] if noted and noted[0] == facts else None

    def add(self, line: Mapping[str, Any]) -> None:
        """Note what was seen; it is in the file when this returns."""
        assert self._stream is not None
        self._take(line)
        self._stream.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._stream.flush()

    def _take(self, line: Mapping[str, Any]) -> None:
        self.files[line["file"]] = Facts(line["size"], line["mtime_ns"], line["inode"]), line["sha256"]
        seen = line.get("seen")
        if seen is not None:
            known = self.pictures.setdefault(line["sha256"], {"bytes": line["size"]})
            for key, value in seen.items():
                known[key] = {**known.get(key, {}), **value} if isinstance(value, dict) else value

    def _read(self, path: Path) -> None:
        assert self._stream is not None
        self._stream.seek(0)
        whole = 0
        for number, line in enumerate(self._stream, start=1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            self._read_line(line, path, number)
        self._stream.truncate(whole)
        if whole == 0:
            self._stream.write(json.dumps({"format": FORMAT}).encode() + b"\n")
            self._stream.flush()

    def _read_line(self, line: bytes, path: Path, number: int) -> None:
        try:
            values = json.loads(line)  # unlike `parse_json`, it takes the names of files that are not UTF-8
            if number == 1:
                if values["format"] != FORMAT:
                    raise DataError(f"it has format {values['format']}, and this d4k reads {FORMAT}")
            else:
                self._take(values)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"line {number} of {path} cannot be used ({error}); remove the file to look at every picture anew",
                path,
                number,
            ) from error
