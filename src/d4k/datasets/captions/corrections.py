"""Corrections that a person saved on the page of captions, read back into the log."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from attrs import frozen

from d4k.datasets.captions.answers import tidied
from d4k.datasets.captions.entries import Entry, Source, now
from d4k.datasets.captions.log import CaptionLog
from d4k.datasets.captions.pictures import Row
from d4k.datasets.captions.run import editing, write_texts
from d4k.errors import DataError
from d4k.files import read_json
from d4k.values import Caption

__all__ = ["FORMAT", "NAME", "Corrected", "read_corrections"]

NAME, FORMAT = "d4k caption corrections", 1
"""What the first two keys of a file of corrections say."""

BAD = "marked as bad by a person"


@frozen
class Corrected:
    """What came of a file of corrections.

    Args:
        corrected: pictures that got another caption.
        bad: pictures whose caption was marked as bad; they have no text now.
        known: corrections that the log held already.
        unknown: corrections of pictures that the dataset does not have.
        changed: texts of the metadata that are others than before.
    """

    corrected: int
    bad: int
    known: int
    unknown: int
    changed: int


@frozen
class _Correction:
    sha256: str
    text: str
    bad: bool


def read_corrections(root: Path, file: Path) -> Corrected:
    """Take the corrections of a person over into the log of a dataset, and write its texts.

    A person's word counts more than a captioner's, and a later one more than an earlier one. Read twice, a file
    changes nothing the second time.

    Args:
        root: folder of the dataset.
        file: JSON that the page saved.

    Raises:
        DataError: the file is none of the page, or the dataset cannot be read.
        OutputError: another process captions the dataset, or it cannot be written.
    """
    corrections = _read(file)
    with editing(root) as (folders, log):
        rows: dict[str, Row] = {}
        for row in (row for folder in folders for row in folder.rows):
            try:
                rows.setdefault(row.digest, row)
            except DataError as error:
                warnings.warn(f"{error}; it is passed over", stacklevel=2)
        counts = {"corrected": 0, "bad": 0, "known": 0, "unknown": 0}
        for correction in corrections:
            counts[_take(correction, rows.get(correction.sha256), log)] += 1
        return Corrected(**counts, changed=write_texts(folders, log))


def _take(correction: _Correction, row: Row | None, log: CaptionLog) -> str:
    """Append a correction to the log; what came of it, as `Corrected` counts it."""
    if row is None:
        return "unknown"
    text = "" if correction.bad else tidied(Caption(correction.text)).text
    caption = Caption(text, reason="" if text else BAD)
    said = log.corrected(correction.sha256)
    if said is not None and said.caption == caption:
        return "known"
    own = row.text if log.is_own(correction.sha256, row.text) else None
    log.append(Entry(correction.sha256, row.name, Source(None), caption, now(), own))
    return "corrected" if text else "bad"


def _read(file: Path) -> list[_Correction]:
    """The corrections in a file that anybody may have written."""
    data = read_json(file, DataError)
    if not isinstance(data, dict) or data.get("file") != NAME or not isinstance(data.get("corrections"), list):
        raise DataError(f"{file} holds no corrections; save them with the button of the page of --review", file)
    if data.get("format") != FORMAT:
        raise DataError(f"{file} has the format {data.get('format')!r}, and this d4k reads format {FORMAT}", file)
    return [_correction(item, file, number) for number, item in enumerate(data["corrections"], 1)]


def _correction(item: Any, file: Path, number: int) -> _Correction:
    types = {"sha256": str, "text": str, "bad": bool}
    for name, kind in types.items():
        if not isinstance(item, dict) or not isinstance(item.get(name), kind):
            raise DataError(f"{file}, correction {number}: '{name}' must be a {kind.__name__}", file)
    return _Correction(**{name: item[name] for name in types})
