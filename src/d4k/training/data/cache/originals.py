"""What the files of pictures hold, without reading all of them again at every start.

The digest of a file is kept beside its size, its times and its inode. A file that shows other ones is read again. So is
one that had just been changed when it was read, since a further change in the same tick of the clock would not show. A
source that is no path is always read.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from d4k.errors import DataError
from d4k.images import picture_size
from d4k.protocols import Sample
from d4k.store import FileFacts, Index

__all__ = ["Originals", "content_digest", "read_source"]

BYTES = 16
FRESH = 2 * 10**9
"""Nanoseconds in which a file counts as just changed: clocks of file systems tick in up to two seconds."""
MANY = 500
"""Files whose facts are written at once."""


class Originals:
    """Digests and sizes of pictures; used by several threads.

    Args:
        index: where they are kept.
    """

    def __init__(self, index: Index) -> None:
        self.index = index
        self._lock = threading.Lock()
        self._new: list[tuple[str, str, FileFacts]] = []

    def facts(self, sample: Sample) -> FileFacts:
        """The digest of a picture's file, and the size of the picture.

        Raises:
            DataError: it cannot be read, as far as its header shows it.
        """
        if not isinstance(sample.source, Path):
            return _look(sample)
        path, stat = str(sample.source.absolute()), _stat(sample.source)
        known = None if stat is None else self.index.file(path, stat)
        if known is not None:
            return known
        begun = time.time_ns()
        facts = _look(sample)
        if stat is not None and _stat(sample.source) == stat and not _is_fresh(sample.source, begun):
            self._keep(path, stat, facts)
        return facts

    def flush(self) -> None:
        """Keep what was found so far."""
        with self._lock:
            found, self._new = self._new, []
        if found:
            self.index.remember(found)

    def _keep(self, path: str, stat: str, facts: FileFacts) -> None:
        with self._lock:
            self._new.append((path, stat, facts))
            full = len(self._new) >= MANY
        if full:
            self.flush()


def read_source(source: Path | Callable[[], BinaryIO], label: str) -> bytes:
    """The bytes of a picture's file.

    Args:
        source: a path, or a callable that opens a stream.
        label: what messages call the picture.

    Raises:
        DataError: it cannot be read.
    """
    try:
        if isinstance(source, Path):
            return source.read_bytes()
        with source() as stream:
            return stream.read()
    except Exception as error:  # a callable of a plugin may raise anything
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        where = source if isinstance(source, Path) else label
        raise DataError(f"picture {label} cannot be read: {reason}; replace it or leave it out", where) from error


def content_digest(content: bytes) -> str:
    """The digest of a file's bytes."""
    return hashlib.blake2b(content, digest_size=BYTES).hexdigest()


def _look(sample: Sample) -> FileFacts:
    content = read_source(sample.source, sample.id)
    width, height = picture_size(lambda: io.BytesIO(content), label=sample.id, upright=True)
    return FileFacts(content_digest(content), width, height)


def _stat(path: Path) -> str | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _is_fresh(path: Path, now: int) -> bool:
    found = path.stat()
    return max(found.st_mtime_ns, found.st_ctime_ns) > now - FRESH
