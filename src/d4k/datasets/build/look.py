"""Looking at one file: its digest, and where it is wanted its pixels and what filters measure in them."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from attrs import field, frozen

from d4k.datasets.build.log import Facts
from d4k.datasets.duplicates import fingerprint
from d4k.errors import ConfigError, DataError
from d4k.images import Picture, open_picture
from d4k.images.read import reading
from d4k.protocols import Filter

__all__ = ["Looker", "Task"]

CALLED = "THE FILE"
"""What reading calls a picture while its name is not to be part of what is kept."""


@frozen
class Task:
    """A file to look at.

    Args:
        path: of the file.
        decode: whether to look at its pixels; otherwise only the digest is taken.
        keys: of what is measured in them.
    """

    path: str
    decode: bool = False
    keys: tuple[str, ...] = ()


@frozen
class Looker:
    """Looks at files, in whatever process; the same file gives the same line.

    Args:
        filters: key of the figures -> the filter that measures them.
        fingerprint: key of the fingerprint that duplicates are found by.
        max_pixels: a picture of more is broken.
    """

    filters: Mapping[str, Filter]
    fingerprint: str
    max_pixels: int
    reading: str = field(init=False)
    """Key of what decides whether a file can be read."""

    @reading.default
    def _reading(self) -> str:
        return f"pillow {PIL.__version__}, {self.max_pixels} pixels"

    @property
    def keys(self) -> tuple[str, ...]:
        """Everything that can be measured."""
        return (*self.filters, self.fingerprint)

    def __call__(self, task: Task) -> dict[str, Any]:
        """A line of the log, see `ScanLog`; or {"file": path, "unreadable": why} where there is nothing to note."""
        path = Path(task.path)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise DataError("it is a folder, not a file" if path.is_dir() else "it is no regular file")
            facts = Facts.of(path)  # before the content: a file that changes meanwhile is read again next time
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            return {"file": task.path, "unreadable": getattr(error, "strerror", None) or str(error)}
        line: dict[str, Any] = {
            "file": task.path,
            "size": facts.size,
            "mtime_ns": facts.mtime_ns,
            "inode": facts.inode,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        if task.decode:
            line["seen"] = self._see(content, path, task.keys)
        return line

    def _see(self, content: bytes, path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
        try:
            image = open_picture(lambda: io.BytesIO(content), max_pixels=self.max_pixels, label=CALLED)
            form = _format(content, self.max_pixels)
        except DataError as error:
            if isinstance(error.__cause__, MemoryError):
                raise ConfigError(f"there is too little memory to decode {path}; try fewer --workers") from error
            return {"broken": {self.reading: _without_name(error)}}
        picture = Picture(np.asarray(image), path)
        seen: dict[str, Any] = {"width": image.width, "height": image.height, "format": form}
        for key in keys:
            if key == self.fingerprint:
                seen["fingerprints"] = {key: fingerprint(picture).to_text()}
                continue
            try:
                measured = self.filters[key].measure(picture)
            except DataError as error:
                seen.setdefault("refused", {})[key] = str(error)
            except Exception as error:
                error.add_note(f"a filter raised it, {self.filters[key]}, while it measured {path}")
                raise
            else:
                seen.setdefault("figures", {})[key] = {name: float(value) for name, value in measured.items()}
        return seen


def _format(content: bytes, max_pixels: int) -> str:
    with reading(lambda: io.BytesIO(content), max_pixels, CALLED) as image:
        return image.format or ""


def _without_name(error: DataError) -> str:
    """What is wrong with a picture, without its name: the same content may lie in other files."""
    words = str(error).removeprefix(f"picture {CALLED} ")
    return words.replace(CALLED, "it").partition("; ")[0]
