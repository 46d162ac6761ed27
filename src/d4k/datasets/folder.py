"""A folder of pictures with a caption file beside each."""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from d4k.errors import DataError
from d4k.files import is_file, read_bytes
from d4k.images import list_pictures
from d4k.protocols import Sample

__all__ = ["FolderDataset"]


@frozen(slots=False)
class FolderDataset:
    """Pictures of a folder, each with its caption in a UTF-8 `.txt` file of the same name beside it.

    Nothing is read before the first use; then the captions are, the pictures not.

    Args:
        path: the folder.
        recursive: take the folders below, too.
        missing_caption: a picture without a caption is an `error`, has the `empty` caption, or is left out: `skip`.
    """

    path: Path = field(converter=Path)
    recursive: bool = field(default=False, kw_only=True)
    missing_caption: Literal["error", "empty", "skip"] = field(default="error", kw_only=True)

    @missing_caption.validator
    def _check_missing_caption(self, attribute: Any, value: str) -> None:
        if value not in ("error", "empty", "skip"):
            raise ValueError(f"{attribute.name} is {value!r}; allowed: error, empty, skip")

    def __len__(self) -> int:
        """The number of pictures.

        Raises:
            DataError: there is none, or a caption is missing or not UTF-8.
        """
        return len(self._contents[0])

    def __getitem__(self, index: int, /) -> Sample:
        """Picture `index`; its id is the path below the folder."""
        return self._contents[0][index]

    @property
    def skipped(self) -> list[str]:
        """The pictures left out, each with the reason."""
        return list(self._contents[1])

    @cached_property
    def _contents(self) -> tuple[list[Sample], list[str]]:
        samples, skipped = [], []
        for picture in list_pictures(self.path, recursive=self.recursive):
            name = picture.relative_to(self.path).as_posix()
            caption = _read_caption(picture.with_suffix(".txt"))
            if caption is None and self.missing_caption == "skip":
                skipped.append(f"{name}: it has no caption {picture.stem}.txt beside it")
            elif caption is None and self.missing_caption == "error":
                raise DataError(
                    f"picture {picture} has no caption {picture.stem}.txt beside it; "
                    'write one, or set missing_caption to "empty" or "skip"',
                    picture,
                )
            else:
                samples.append(Sample(name, caption or "", picture))
        if not samples:
            raise DataError(f"none of the {len(skipped)} pictures in {self.path} has a caption; write some", self.path)
        if skipped:
            warnings.warn(
                f"{len(skipped)} of {len(skipped) + len(samples)} pictures in {self.path} were skipped; "
                f"the first is {skipped[0]}. All are in .skipped",
                stacklevel=2,
            )
        return samples, skipped


def _read_caption(path: Path) -> str | None:
    """The text of a caption file without surrounding white space, or None where there is no file."""
    if not is_file(path, DataError):
        return None
    data = read_bytes(path, DataError)
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"caption {path} is not UTF-8 text in line {line}; save it as UTF-8", path, line) from error
