"""`metadata.jsonl`: where it is, and what its lines say."""

from __future__ import annotations

import json
import os.path
from pathlib import Path

from attrs import Factory, field, frozen

from d4k import DataError, Sample

__all__ = ["METADATA", "SHORT", "Reader", "locate", "read_lines"]

METADATA = "metadata.jsonl"

SHORT = {"eval-2048": "eval/size_2048", "eval-4096": "eval/size_4096"}
"""Short names of the splits that models are compared on, and the folders of `zhang0jhon/Aesthetic-4K` that they are."""


def locate(folder: Path, split: str) -> Path:
    """The metadata of a split: in the folder of that name or of its short name, or for `train` at the root.

    Raises:
        DataError: there is none; the message lists the splits there are.
    """
    for name in (split, SHORT.get(split, split)):
        if _is_file(folder / name / METADATA):
            return folder / name / METADATA
    if split == "train" and _is_file(folder / METADATA):
        return folder / METADATA
    splits = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"**/{METADATA}"))
    known = ", ".join("train (at the root)" if name == "." else name for name in splits) or "none"
    raise DataError(f"{folder} has no split '{split}' with a {METADATA}. Splits there: {known}.", folder)


def _is_file(path: Path) -> bool:
    """Whether there is a file; a path that cannot be one, since it is too long, is none."""
    try:
        return path.is_file()
    except PermissionError as error:
        raise DataError(f"cannot look at {path}: {error.strerror}; may you read it and its folder?", path) from error
    except (OSError, ValueError, RuntimeError):
        return False


def read_lines(path: Path) -> list[bytes]:
    """The lines of a `metadata.jsonl`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}", path) from error


@frozen
class Reader:
    """Turns the lines of one `metadata.jsonl` into samples.

    Args:
        path: the file; every `file_name` is relative to its folder.
        root: the folder that pictures may not leave.
        lines: which line names which picture, as far as it was read.
    """

    path: Path
    root: Path = field(default=Factory(lambda self: _root(self.path.parent.resolve()), takes_self=True))
    lines: dict[str, int] = field(factory=dict)

    def parse(self, line: bytes, number: int) -> Sample:
        """The sample of a line. Its picture exists inside the folder, but is not opened.

        Args:
            line: UTF-8 JSON, an object with the strings `file_name` and `text`.
            number: of the line, from 1.

        Raises:
            DataError: the line cannot be used; `path` and `line` are set.
        """
        try:
            name, text = _fields(line)
            relative = self._relative(name)
            if relative in self.lines:
                raise ValueError(f"picture '{name}' is in line {self.lines[relative]} already")
        except (ValueError, OSError, RuntimeError) as error:  # a loop of links is a RuntimeError up to Python 3.12
            raise DataError(
                f"{self.path}, line {number}: {error}; mend or remove the line", self.path, number
            ) from error
        self.lines[relative] = number
        return Sample(relative, text, self.path.parent / relative)

    def _relative(self, name: str) -> str:
        """A `file_name` in its shortest form, once it is sure to be a file inside the folder."""
        relative = Path(os.path.normpath(name))
        picture = self.path.parent / relative
        inside = not relative.is_absolute() and ".." not in relative.parts
        if not inside or not picture.resolve().is_relative_to(self.root):
            raise ValueError(f"file_name '{name}' leaves the folder")
        if not picture.is_file():
            raise ValueError(f"picture '{name}' does not exist")
        return relative.as_posix()


def _fields(line: bytes) -> tuple[str, str]:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"it holds a {type(row).__name__}, not an object with file_name and text")
    for key in ("file_name", "text"):
        if key not in row:
            raise ValueError(f"it has no '{key}'; its keys are {', '.join(row) or 'none'}")
        if not isinstance(row[key], str):
            raise ValueError(f"'{key}' is {row[key]!r}, not a string"[:200])
        _check_text(key, row[key])
    return row["file_name"], row["text"]


def _check_text(key: str, value: str) -> None:
    """Refuse half a character, which neither a file name nor a tokenizer can hold, and NUL in a file name."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"'{key}' holds half a character (the lone surrogate {value[error.start]!r})") from error
    if key == "file_name" and "\0" in value:
        raise ValueError("'file_name' holds a NUL")


def _root(folder: Path) -> Path:
    """The folder itself; in the Hub's cache, where `snapshots/<revision>` links into `blobs`, the parent of both."""
    for parent in folder.parents:
        if parent.name == "snapshots" and (parent.parent / "blobs").is_dir():
            return parent.parent
    return folder
