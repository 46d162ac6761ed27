"""`index.jsonl`: what a folder of pictures holds, a line a picture, appended as each is finished."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from d4k.errors import OutputError
from d4k.files import write_text

__all__ = ["INDEX", "Index"]

INDEX = "index.jsonl"
"""Lists a folder of pictures, one JSON object a line: `file`, `prompt`, `seed`, `width`, `height`, `recipe`."""

SHOWN = ("prompt", "seed", "width", "height")


class Index:
    """The index of a folder. Several processes may share it, if they call `append` and `tidy` under one lock.

    Args:
        folder: which the index lies in.
        order: name of each picture that may be listed -> its place.
    """

    def __init__(self, folder: Path, order: Mapping[str, int]) -> None:
        self.path, self.order = folder / INDEX, order

    def begin(self) -> None:
        """Make an empty index where there is none: with it, the folder is known as one of pictures."""
        if not self.path.exists():  # its time of writing is not to change: pictures of a later time are not trusted
            self.path.touch()

    def read(self) -> dict[str, str]:
        """Name -> line of the pictures that may be listed; what is damaged, or of something else, is left out."""
        return dict(self._rows())

    def recipe(self, line: str) -> dict[str, Any]:
        """The recipe that a line of `read` holds."""
        row = json.loads(line)
        rest = row.get("recipe")
        return {**{name: row.get(name) for name in SHOWN}, **(rest if isinstance(rest, dict) else {})}

    def append(self, name: str, recipe: Mapping[str, Any]) -> None:
        """Add a finished picture, with its line on the disk when this returns.

        Raises:
            OutputError: the disk is full or the index cannot be written; no part of a line is left.
        """
        try:
            with self.path.open("ab", buffering=0) as file:
                end = file.tell()
                line = (b"" if self._ends_well(end) else b"\n") + line_of(name, recipe).encode()
                try:
                    if file.write(line) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror or error}; run again to go on where it ended"
            ) from error

    def tidy(self, lines: Mapping[str, str]) -> None:
        """Make these the index, in the order of the pictures; it is not written if it is that already."""
        ordered = "".join(lines[name] for name in sorted(lines, key=self.order.__getitem__))
        if self.path.read_bytes() != ordered.encode():
            write_text(self.path, ordered)

    def _ends_well(self, end: int) -> bool:
        """Whether the last line is whole; that of a process that was killed may not be."""
        if not end:
            return True
        with self.path.open("rb") as file:
            file.seek(end - 1)
            return file.read(1) == b"\n"

    def _rows(self) -> Iterator[tuple[str, str]]:
        for line in self.path.read_bytes().splitlines(keepends=True):
            with suppress(ValueError, RecursionError):  # a line that is not JSON is one that was cut off
                row = json.loads(line)
                name = row.get("file") if isinstance(row, dict) else None
                if line.endswith(b"\n") and isinstance(name, str) and name in self.order:
                    yield name, line.decode()


def line_of(name: str, recipe: Mapping[str, Any]) -> str:
    """The line of a picture: what most readers want first, and the rest of its recipe."""
    shown = {key: recipe[key] for key in SHOWN}
    rest = {key: value for key, value in recipe.items() if key not in shown}
    return json.dumps({"file": name, **shown, "recipe": rest}, ensure_ascii=False) + "\n"
