"""The pictures of a dataset and their `metadata.jsonl`: read, and written again with other texts.

A dataset is a folder with `metadata.jsonl`, or one with several of them below, as `train/` and `eval/` are. A folder of
pictures without any is a dataset, too: it gets a `metadata.jsonl`, whose texts come from `.txt` files where there are
some.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import field, frozen

from d4k.errors import DataError
from d4k.files import is_file, is_folder, read_bytes, read_json_line, write_text
from d4k.images import list_pictures, picture_size

__all__ = ["APART", "LOG", "METADATA", "Folder", "Row", "read_dataset"]

METADATA = "metadata.jsonl"
LOG = "captions.jsonl"
APART = "kept-apart"
"""Holds the pictures without a licence, which are captioned only where this folder itself is named."""

HEX = frozenset("0123456789abcdef")


@frozen(slots=False, eq=False)
class Row:
    """A picture of a dataset.

    Args:
        file: of the picture.
        name: of the file below the dataset's folder, for messages.
        values: what its line in the metadata holds.
        sha256: of the file, as the metadata has it; None where it does not.
    """

    file: Path
    name: str
    values: Mapping[str, Any]
    sha256: str | None = None

    @property
    def known(self) -> bool:
        """Whether its SHA-256 is known without reading the file."""
        return self.sha256 is not None or "digest" in vars(self)

    @property
    def text(self) -> str | None:
        """The text it has; None where there is none."""
        return self.values.get("text") or None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the file: that of the metadata, or else computed when it is first asked for.

        Raises:
            DataError: the file cannot be read.
        """
        if self.sha256 is not None:
            return self.sha256
        try:
            with self.file.open("rb") as stream:
                return file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {self.file}: {error.strerror or error}", self.file) from error


@frozen
class Folder:
    """A folder whose pictures one `metadata.jsonl` lists.

    Args:
        path: of the folder.
        rows: the pictures, in the order of the lines.
        listed: whether there is a `metadata.jsonl`.
    """

    path: Path
    rows: list[Row] = field(factory=list)
    listed: bool = True

    def write(self, text_of: Callable[[Row], str | None]) -> int:
        """Write the metadata with other texts, whole or not at all; everything else in the lines stays.

        Args:
            text_of: the text that a picture is to have, or None.

        Returns:
            How many texts changed. Where none does, nothing is written.

        Raises:
            OutputError: it cannot be written, and is as it was.
        """
        lines, changed = [], 0
        for row in self.rows:
            text = text_of(row)
            changed += text != row.text
            lines.append(json.dumps(_with_text(row.values, text), ensure_ascii=False) + "\n")
        if changed:
            write_text(self.path / METADATA, "".join(lines))
        return changed


def read_dataset(root: Path) -> list[Folder]:
    """The folders of a dataset, in the order of their names; a warning counts the pictures that no metadata lists.

    Args:
        root: the folder that the user named.

    Raises:
        DataError: there is no picture, or a line of a `metadata.jsonl` cannot be used.
    """
    if not is_folder(root, DataError):
        raise DataError(f"{root} is not a folder; name one that holds pictures, or {METADATA} and pictures", root)
    places = sorted(_with_metadata(root))
    if not places:
        return [_unlisted(root)]
    folders = [_listed(place, root) for place in places]
    if not any(folder.rows for folder in folders):
        raise DataError(f"{METADATA} in {root} lists no picture; add some", root)
    _warn_of_unlisted(root, folders)
    return folders


def _with_metadata(root: Path) -> Iterator[Path]:
    """The folders that have a `metadata.jsonl`; hidden ones and the one for pictures without a licence are left out."""
    for parent, inner, names in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".") and name != APART]
        if METADATA in names:
            yield Path(parent)


def _listed(place: Path, root: Path) -> Folder:
    path = place / METADATA
    rows, seen = [], dict[str, int]()
    for number, line in enumerate(read_bytes(path, DataError).split(b"\n"), 1):
        if not line.strip():
            continue
        values = read_json_line(line, path, number)
        try:
            name = _inside(values, place)
            if name in seen:
                raise ValueError(f"picture '{name}' is in line {seen[name]} already")
        except (ValueError, OSError, RuntimeError) as error:  # a loop of links is a RuntimeError up to Python 3.12
            raise DataError(f"{path}, line {number}: {error}; mend or remove the line", path, number) from error
        seen[name] = number
        rows.append(Row(place / name, (place / name).relative_to(root).as_posix(), values, _sha256(values)))
    return Folder(place, rows)


def _inside(values: Mapping[str, Any], place: Path) -> str:
    """The `file_name` of a line, once it is sure to stay in the folder."""
    name, text = values.get("file_name"), values.get("text")
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"'file_name' is {name!r}; it must name a picture")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"'text' is {text!r}, not a string"[:200])
    short = PurePosixPath(os.path.normpath(name))
    if short.is_absolute() or ".." in short.parts or not (place / short).resolve().is_relative_to(place.resolve()):
        raise ValueError(f"file_name '{name}' leaves the folder")
    return short.as_posix()


def _sha256(values: Mapping[str, Any]) -> str | None:
    found = values.get("sha256")
    return found if isinstance(found, str) and len(found) == 64 and HEX.issuperset(found) else None


def _unlisted(root: Path) -> Folder:
    """A folder of pictures, as its metadata will list them."""
    rows = []
    for file in list_pictures(root, recursive=True):
        if APART in (parts := file.relative_to(root).parts):
            continue
        if not file.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{file} is a link that leaves the folder; put the picture itself there", file)
        values: dict[str, Any] = {"file_name": "/".join(parts)}
        if text := _beside(file.with_suffix(".txt")):
            values["text"] = text
        with suppress(DataError):  # that it cannot be read is said when it is to be captioned
            values["width"], values["height"] = picture_size(file, upright=True)
        rows.append(Row(file, values["file_name"], values))
    if not rows:
        raise DataError(f"{root} holds no picture but those in {APART}; name that folder itself", root)
    return Folder(root, rows, listed=False)


def _beside(path: Path) -> str:
    if not is_file(path, DataError):
        return ""
    try:
        return read_bytes(path, DataError).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"caption {path} is not UTF-8 text; save it as UTF-8", path) from error


def _warn_of_unlisted(root: Path, folders: list[Folder]) -> None:
    named = {row.file for folder in folders for row in folder.rows}
    found: list[Path] = []
    for folder in folders:
        with suppress(DataError):  # a folder without pictures has none that are not listed
            found += [
                file
                for file in list_pictures(folder.path, recursive=True)
                if file not in named and APART not in file.relative_to(root).parts
            ]
    if missing := sorted(set(found)):
        warnings.warn(
            f"{len(missing)} pictures in {root} are in no {METADATA} and are left out; the first is "
            f"{missing[0].relative_to(root)}. Add lines with their file_name to have them captioned",
            stacklevel=3,
        )


def _with_text(values: Mapping[str, Any], text: str | None) -> dict[str, Any]:
    """The values of a line with another text, which comes after the name where there was none."""
    if text is None:
        return {key: value for key, value in values.items() if key != "text"}
    if "text" in values:
        return {**values, "text": text}
    return {"file_name": values["file_name"], "text": text, **values}
