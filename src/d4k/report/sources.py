"""What a report is made of: evaluations, their pictures side by side, and whether their files are still the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path
from typing import TypeAlias

import attrs
from attrs import frozen
from tqdm.auto import tqdm

from d4k.errors import DataError
from d4k.evaluation import pair_pictures
from d4k.evaluation.result import SCORES, Evaluation, Picture
from d4k.evaluation.systems import MANIFEST, System, find_evaluations, read_systems
from d4k.files import is_file
from d4k.images import picture_size

__all__ = [
    "MANIFEST",
    "Row",
    "Shown",
    "Source",
    "check_files",
    "find_sources",
    "pair",
    "slugs",
    "unique",
    "with_photographs",
]

PHOTOGRAPHS = "photographs"
"""Folder of the reference pictures of a benchmark, and the name of their column."""

BLOCK = 1 << 20


@frozen
class Source:
    """One column of the report.

    Args:
        name: unique among the columns.
        system: what was measured; None of photographs that were not.
        folder: of `scores.json`.
    """

    name: str
    system: System | None
    folder: Path

    @property
    def evaluation(self) -> Evaluation | None:
        """What was measured, under the name of the column."""
        return None if self.system is None else self.system.evaluation

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Those that were measured."""
        return () if self.evaluation is None else self.evaluation.pictures

    def where(self, path: str) -> Path:
        """The place of a file that the evaluation names."""
        return (self.folder / path).resolve()


@frozen
class Shown:
    """One picture of the report.

    Args:
        picture: as it was measured; its `sha256` is empty where it was not.
        file: where it lies.
    """

    picture: Picture
    file: Path


Row: TypeAlias = tuple[Shown | None, ...]
"""Pictures that belong together, one a column, or None."""


def find_sources(folders: Sequence[Path]) -> list[Source]:
    """Read evaluations.

    Args:
        folders: each holds a `scores.json`, or is that file, or is the folder of a benchmark, which stands for its
            photographs and all of its models.

    Raises:
        DataError: a folder is none of them, is named twice, or its `scores.json` cannot be read.
    """
    places = [place for folder in folders for place in _evaluations(folder)]
    if not places:
        raise DataError("a report needs at least one folder with scores; make one with d4k evaluate or d4k benchmark")
    systems = read_systems(places)
    for system in systems:
        if not system.evaluation.pictures:
            raise DataError(
                f"the evaluation in {system.folder} has no picture to show; measure its pictures again", system.folder
            )
    return [Source(system.name, system, system.folder) for system in systems]


def _evaluations(folder: Path) -> list[Path]:
    """The folders of evaluations that a user means by one folder."""
    own = folder / PHOTOGRAPHS
    measured = is_file(folder / MANIFEST, DataError) and is_file(own / SCORES, DataError)
    return [*([own] if measured else []), *find_evaluations([folder])]


def with_photographs(sources: Sequence[Source]) -> tuple[Source | None, list[Source]]:
    """The column of photographs, and the others.

    There is one where every picture of every system has a reference picture. Where the reference pictures themselves
    were measured, that evaluation is the column.

    Args:
        sources: as read.
    """
    for source in sources:
        others = [other for other in sources if other is not source]
        files = {source.where(picture.file) for picture in source.pictures}
        if others and all(_references(other) for other in others) and files >= set().union(*map(_references, others)):
            return source, others
    if all(_references(source) for source in sources):
        name = unique([*(source.name for source in sources), PHOTOGRAPHS])[-1]
        return Source(name, None, sources[0].folder), list(sources)
    return None, list(sources)


def _references(source: Source) -> set[Path]:
    """The reference pictures of a system; none where one is missing."""
    named = [picture.reference for picture in source.pictures]
    return {source.where(name) for name in named if name} if all(named) else set()


def pair(photographs: Source | None, sources: Sequence[Source]) -> list[Row]:
    """Put the pictures side by side, the photographs first.

    Args:
        photographs: their column.
        sources: the others.
    """
    rows: list[Row] = []
    measured = {} if photographs is None else {photographs.where(p.file): p for p in photographs.pictures}
    for pictures in pair_pictures([source.evaluation for source in sources if source.evaluation is not None]):
        both = list(zip(sources, pictures, strict=True))
        row: Row = tuple(None if p is None else Shown(p, source.where(p.file)) for source, p in both)
        if photographs is not None:
            file = next(source.where(p.reference) for source, p in both if p is not None and p.reference)
            row = (Shown(measured.get(file) or Picture(file.stem, str(file), "", 0, 0), file), *row)
        rows.append(row)
    return rows


def check_files(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Refuse pictures that are gone, or are no longer those that were measured.

    Args:
        rows: of the report.
        names: of the columns.

    Returns:
        The rows, with hash and size of the pictures that were not measured, and the size that each file has.

    Raises:
        DataError: some are; the message counts them and names the first.
    """
    shown = [(item, name) for row in rows for item, name in zip(row, names, strict=True) if item is not None]
    missing = [(item, name) for item, name in shown if not is_file(item.file, DataError)]
    if missing:
        raise _gone(missing)
    with ThreadPoolExecutor() as pool:
        files = list(dict.fromkeys(item.file for item, _ in shown))
        bar = tqdm(pool.map(_sha256, files), total=len(files), desc="checking pictures", unit="picture", leave=False)
        found = dict(zip(files, bar, strict=True))
    changed = [(item, name) for item, name in shown if item.picture.sha256 not in ("", found[item.file])]
    if changed:
        raise _other(changed)
    return [tuple(None if item is None else _complete(item, found[item.file]) for item in row) for row in rows]


def _complete(item: Shown, sha256: str) -> Shown:
    width, height = picture_size(item.file, upright=True)
    return attrs.evolve(item, picture=attrs.evolve(item.picture, sha256=sha256, width=width, height=height))


def _gone(missing: Sequence[tuple[Shown, str]]) -> DataError:
    item, name = missing[0]
    return DataError(
        f"{len(missing)} of the pictures are not where they were when they were measured; the first one, of '{name}', "
        f"is looked for at {item.file}. Put them back beside their {SCORES}, or measure them where they are now",
        item.file,
    )


def _other(changed: Sequence[tuple[Shown, str]]) -> DataError:
    item, name = changed[0]
    return DataError(
        f"{len(changed)} of the pictures are not those that were measured (their SHA-256 differs from {SCORES}); "
        f"the first one, of '{name}', is {item.file}. Put them back, or measure them again: d4k evaluate",
        item.file,
    )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}", file) from error
    return digest.hexdigest()


def slugs(names: Iterable[str]) -> list[str]:
    """Names as parts of paths, of the characters [a-z0-9-], unique.

    >>> slugs(["SD3 / F16", "sd3-f16", "模型"])
    ['sd3-f16', 'sd3-f16-2', 'x']
    """
    plain = (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") for name in names)
    return unique([name or "x" for name in plain], "-{}")


def unique(names: Sequence[str], form: str = " ({})") -> list[str]:
    """Names; those that were there before with a number."""
    taken: dict[str, None] = {}
    for name in names:
        candidates = chain([name], (name + form.format(number) for number in count(2)))
        taken[next(candidate for candidate in candidates if candidate not in taken)] = None
    return list(taken)
