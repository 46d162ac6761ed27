"""Pictures on their way into a dataset: linked or copied, byte for byte."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from d4k.datasets.build.decide import APART, SHORT
from d4k.datasets.build.splits import EVAL, TRAIN
from d4k.datasets.build.values import Decision
from d4k.errors import DataError
from d4k.files import atomic_file, sweep
from d4k.locks import output_errors

__all__ = ["FOLDERS", "place_pictures", "remove_others"]

FOLDERS = (TRAIN, EVAL, f"{APART}/{TRAIN}", f"{APART}/{EVAL}")
"""Folders that have a `metadata.jsonl` and a folder `images`."""

OURS = re.compile(rf"[a-z0-9-]+-[0-9a-f]{{{SHORT}}}(-\d+)?\.\w+")
"""Names that are given to files by a build; another file in the folder is left alone."""


def place_pictures(
    folder: Path,
    decisions: Sequence[Decision],
    how: Literal["link", "copy"],
    unchanged: Callable[[Path, str], bool],
    *,
    quiet: bool = False,
) -> None:
    """Put each picture of the dataset into its folder, unless it is there.

    Args:
        folder: of the dataset.
        decisions: on all pictures.
        how: hard links, or copies; where a file system makes no link there, a copy.
        unchanged: whether a file still has the digest.
        quiet: show no progress.

    Raises:
        DataError: a picture has changed since it was looked at.
        OutputError: the disk is full.
    """
    wanted = [decision for decision in decisions if decision.file_name]
    for images in {folder / Path(decision.file_name).parent for decision in wanted}:
        sweep(images)
    for decision in tqdm(wanted, "placing pictures", delay=0.5, unit="picture", disable=quiet):
        source, target = decision.listed.path, folder / decision.file_name
        assert source is not None  # what has no file is broken
        if not unchanged(source, decision.seen.sha256):
            raise DataError(f"{source} has changed since it was looked at; run the command again", source)
        if not _is_there(source, target, decision.seen.bytes, how):
            _place(source.resolve(), target, how)


def _is_there(source: Path, target: Path, size: int, how: str) -> bool:
    if not target.is_file() or target.stat().st_size != size:
        return False
    return how == "link" or not target.samefile(source)


def _place(source: Path, target: Path, how: str) -> None:
    with output_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "link":
            target.unlink(missing_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another file system, or one without hard links
                pass
            else:
                return
        with atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)


def remove_others(folder: Path, named: Iterable[str]) -> None:
    """Remove pictures that an earlier build placed and that the dataset has no more.

    Args:
        folder: of the dataset.
        named: paths below it of the pictures that stay.
    """
    stay = {folder / name for name in named}
    with output_errors(folder):
        for split in FOLDERS:
            for file in (folder / split / "images").glob("*"):
                if file not in stay and OURS.fullmatch(file.name) and file.is_file():
                    file.unlink()
