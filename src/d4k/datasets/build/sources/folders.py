"""Pictures in folders, with what `metadata.jsonl` and caption files beside them say."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from attrs import define, evolve, field

from d4k.datasets.build.sources.rows import Row, read_row
from d4k.datasets.build.values import Listed
from d4k.errors import DataError
from d4k.files import is_file, read_bytes, read_json_line
from d4k.images.read import ENDINGS

__all__ = ["METADATA", "FolderSource"]

METADATA = "metadata.jsonl"


@define
class FolderSource:
    """A folder and the folders below it, without hidden ones.

    Args:
        path: the folder.
        label: begins each id.
        leave: a folder below that is not looked into.
        common: what holds for every picture of which nothing else is said.

    Attributes:
        others: files that are neither pictures nor say anything of one, counted by their ending.
    """

    path: Path
    label: str
    leave: Path
    common: Row = field(factory=Row)
    others: Counter[str] = field(factory=Counter)
    _said: dict[Path, Row] = field(factory=dict)

    def __iter__(self) -> Iterator[Listed]:
        """The pictures in the order of their paths, then those that a `metadata.jsonl` names and that are not there.

        A folder that is named like a picture is listed as well, so that it is counted with what is broken.

        Raises:
            DataError: a folder may not be read, or a line of a `metadata.jsonl` cannot be used.
        """
        for parent, inner, names in os.walk(self.path, onerror=self._refuse):
            here = Path(parent)
            inner[:] = sorted(name for name in inner if not name.startswith(".") and not self._left(here / name))
            shown = [name for name in names if not name.startswith(".")]
            if METADATA in shown:
                self._read_metadata(here)
            yield from self._pictures(here, sorted([*shown, *filter(_like_a_picture, inner)]))
        for path, row in self._said.items():
            yield self._listed(path, row)

    def _left(self, folder: Path) -> bool:
        return folder.name == self.leave.name and self.leave.exists() and folder.samefile(self.leave)

    def _pictures(self, folder: Path, names: list[str]) -> Iterator[Listed]:
        stems = {Path(name).stem for name in names if _like_a_picture(name)}
        for name in names:
            path = folder / name
            if not _like_a_picture(name):
                if name != METADATA and not (path.suffix == ".txt" and path.stem in stems):
                    self.others[path.suffix.lower() or "no ending"] += 1
                continue
            listed = self._listed(path, self._said.pop(path, Row()))
            yield listed if listed.text else evolve(listed, text=_caption(path.with_suffix(".txt")))

    def _listed(self, path: Path, row: Row) -> Listed:
        return Listed(
            f"{self.label}/{path.relative_to(self.path).as_posix()}",
            path,
            row.url,
            row.licence or self.common.licence,
            row.author or self.common.author,
            row.source or self.common.source,
            row.text,
        )

    def _read_metadata(self, folder: Path) -> None:
        file = folder / METADATA
        for number, line in enumerate(read_bytes(file, DataError).splitlines(), start=1):
            if not line.strip():
                continue
            row = read_row(read_json_line(line, file, number))
            if row.path is None:
                raise DataError(f"{file}, line {number} has no file_name; mend or remove the line", file, number)
            path = Path(os.path.normpath(folder / row.path))
            if "\0" in row.path or not path.is_relative_to(folder):
                raise DataError(f"{file}, line {number}: file_name {row.path!r} leaves the folder", file, number)
            if path not in self._said:
                self._said[path] = row

    def _refuse(self, error: OSError) -> NoReturn:
        raise DataError(f"cannot list {error.filename}: {error.strerror or error}", error.filename) from error


def _like_a_picture(name: str) -> bool:
    return Path(name).suffix.lower() in ENDINGS


def _caption(path: Path) -> str | None:
    """What a caption file says; None where there is none."""
    if not is_file(path, DataError):
        return None
    try:
        return read_bytes(path, DataError).decode("utf-8-sig").strip() or None
    except UnicodeDecodeError as error:
        raise DataError(f"caption {path} is not UTF-8 text; save it as UTF-8", path) from error
