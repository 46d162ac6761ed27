"""The dataset: a folder of pictures that `metadata.jsonl` names and captions, local or from the Hub.

Source: Diffusion-4K, Zhang et al. 2025, arXiv 2503.18352, section 3.
"""

from __future__ import annotations

import re
import warnings
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from attrs import field, frozen

from d4k import DataError, Sample
from d4k.images import MAX_PIXELS, open_picture, picture_size
from d4k_aesthetic4k.metadata import METADATA, SHORT, Reader, locate, read_lines

__all__ = ["Aesthetic4K"]

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@frozen
class Contents:
    """What reading a folder gave: the samples, the lines left out as unusable, the pictures left out by size."""

    samples: list[Sample] = field(factory=list)
    skipped: list[str] = field(factory=list)
    filtered: list[str] = field(factory=list)


@frozen(slots=False)
class Aesthetic4K:
    """Captioned pictures of a folder with `metadata.jsonl`: one JSON object a line, `file_name` and `text`.

    Nothing is read before the first use. Then all of the metadata is, and pictures are opened only if an option needs
    it: their headers for the size filter and for `on_error="skip"`, their pixels for `verify`.

    Args:
        source: a local folder, or a Hub dataset such as `zhang0jhon/Aesthetic-4K` or `zhang0jhon/Aesthetic-Train-V2`,
            which is downloaded (`HF_HUB_OFFLINE=1`: taken from the local cache).
        split: the folder below that holds `metadata.jsonl`. A source with `metadata.jsonl` at its root is all `train`;
            `eval-2048` and `eval-4096` are the folders `eval/size_2048` and `eval/size_4096`.
        min_size: leave out pictures whose short side has fewer pixels.
        max_size: leave out pictures whose long side has more pixels.
        on_error: `raise` at the first malformed line or unusable picture, or `skip` and name them in `.skipped`.
            Truncated pictures are found by `verify` only.
        verify: decode every picture on first use, to find the truncated ones; takes about as long as viewing them all.
        max_pixels: pictures of more pixels by their header are unusable.
    """

    source: str = field(default="zhang0jhon/Aesthetic-4K", converter=str)
    split: str = field(default="train")
    min_size: int | None = field(default=None, kw_only=True)
    max_size: int | None = field(default=None, kw_only=True)
    on_error: Literal["raise", "skip"] = field(default="raise", kw_only=True)
    verify: bool = field(default=False, kw_only=True)
    max_pixels: int = field(default=MAX_PIXELS, kw_only=True)

    @split.validator
    def _check_split(self, attribute: Any, value: str) -> None:
        path = PurePosixPath(value)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{attribute.name} is {value!r}; it must name a folder inside the source, such as train")

    @min_size.validator
    @max_size.validator
    @max_pixels.validator
    def _check_count(self, attribute: Any, value: int | None) -> None:
        if value is None and attribute.name != "max_pixels":
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{attribute.name} is {value!r}; it must be a whole number of pixels, at least 1")

    @on_error.validator
    def _check_on_error(self, attribute: Any, value: str) -> None:
        if value not in ("raise", "skip"):
            raise ValueError(f"{attribute.name} is {value!r}; allowed: raise, skip")

    def __len__(self) -> int:
        """The number of pictures.

        Raises:
            DataError: the source cannot be had or holds no usable picture; with `on_error="raise"`, also for the first
                unusable line, with `path` and `line`.
        """
        return len(self._contents.samples)

    def __getitem__(self, index: int, /) -> Sample:
        """Picture `index`; its id is its `file_name`."""
        return self._contents.samples[index]

    @property
    def skipped(self) -> list[str]:
        """The lines left out as unusable, each with the reason."""
        return list(self._contents.skipped)

    @property
    def filtered(self) -> list[str]:
        """The pictures left out by `min_size` and `max_size`, each with its size."""
        return list(self._contents.filtered)

    @cached_property
    def _contents(self) -> Contents:
        metadata = locate(self._folder(), self.split)
        found, reader = Contents(), Reader(metadata)
        for number, line in enumerate(read_lines(metadata), start=1):
            if not line.strip():
                continue
            try:
                self._take(reader.parse(line, number), metadata, number, found)
            except DataError as error:
                if self.on_error == "raise":
                    raise
                found.skipped.append(str(error))
        self._report(found, metadata)
        return found

    def _folder(self) -> Path:
        folder = Path(self.source).expanduser()
        try:
            if folder.is_dir():
                return folder
        except OSError as error:  # too long a name, or no permission
            raise DataError(f"cannot look at {folder}: {error.strerror or error}", folder) from error
        if not HUB_ID.fullmatch(self.source):
            raise DataError(f"{folder} is not a folder; pass one that holds {METADATA}, or a Hub id", folder)
        return download(self.source, self.split)

    def _take(self, sample: Sample, metadata: Path, number: int, found: Contents) -> None:
        """Put a sample where it belongs, after as much of a look at its picture as the options ask for."""
        size = None
        try:
            if self.verify:
                size = open_picture(sample.source, max_pixels=self.max_pixels).size
            elif self.min_size or self.max_size or self.on_error == "skip":
                size = picture_size(sample.source, max_pixels=self.max_pixels)
        except DataError as error:
            raise DataError(f"{metadata}, line {number}: {error}", metadata, number) from error
        if size and (min(size) < (self.min_size or 0) or max(size) > (self.max_size or max(size))):
            found.filtered.append(f"{sample.id}: {size[0]}x{size[1]} pixels")
        else:
            found.samples.append(sample)

    def _report(self, found: Contents, metadata: Path) -> None:
        skipped, filtered, kept = len(found.skipped), len(found.filtered), len(found.samples)
        if not kept:
            first = f"; the first: {found.skipped[0]}" if skipped else ""
            raise DataError(
                f"{metadata} leaves no picture: {skipped} skipped as unusable, {filtered} filtered by size{first}",
                metadata,
            )
        if skipped:
            warnings.warn(
                f"{skipped} of {skipped + filtered + kept} lines of {metadata} were skipped; "
                f"the first: {found.skipped[0]}. All are in .skipped",
                stacklevel=2,
            )


def download(name: str, split: str) -> Path:
    """Fetch a Hub dataset, or find it in the local cache, and return its folder.

    Args:
        name: Hub id of the dataset.
        split: only this folder is fetched; `train` may lie at the root, so with it everything is.

    Raises:
        DataError: it cannot be reached, or does not exist.
    """
    from huggingface_hub import snapshot_download

    wanted = None if split == "train" else [f"{SHORT.get(split, split)}/*", f"*{METADATA}"]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except Exception as error:  # the Hub's client raises its own errors, OSError and those of its HTTP library
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"'{name}' is not a folder here, and the Hub dataset of that name cannot be had ({reason}); "
            "download it where there is a network and pass the local folder as source"
        ) from error
