"""The page on which a person corrects captions: one HTML file with everything in it, opened from the disk."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from attrs import frozen
from PIL import Image
from tqdm import tqdm

from d4k.datasets.captions.corrections import FORMAT, NAME
from d4k.datasets.captions.entries import Entry
from d4k.datasets.captions.log import CaptionLog
from d4k.datasets.captions.pictures import LOG, Row, read_dataset
from d4k.errors import ConfigError, DataError
from d4k.files import read_bytes, refuse_unwritable, write_text
from d4k.images import open_picture

__all__ = ["Reviewed", "write_review"]

ASSETS = Path(__file__).parent / "assets"
SIDE, QUALITY = 480, 80
"""Pixels of the longer side of a thumbnail, and its JPEG quality: about 30 kB each."""


@frozen
class Reviewed:
    """A page that was written.

    Args:
        page: the file.
        shown: pictures on it.
        pictures: of the dataset.
        unreadable: pictures that cannot be shown, with the reason.
    """

    page: Path
    shown: int
    pictures: int
    unreadable: dict[str, str]


def write_review(root: Path, page: Path, count: int = 500, *, quiet: bool = False) -> Reviewed:
    """Write the page of a dataset's pictures and captions; the dataset stays as it is.

    Pictures without a caption come first, then those that no person has seen, in an order by their SHA-256, which is
    as good as random and always the same; then the rest.

    Args:
        root: folder of the dataset.
        page: file to write, .html.
        count: pictures that are shown at most.
        quiet: show no progress.

    Raises:
        ConfigError: the page has another ending.
        DataError: the dataset cannot be read.
        OutputError: the page cannot be written.
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"cannot write the page '{page.name}': the ending must be .html")
    refuse_unwritable(page.parent)
    log, unreadable = CaptionLog(root / LOG), dict[str, str]()
    rows = _chosen([row for folder in read_dataset(root) for row in folder.rows], log, unreadable)
    items: list[dict[str, Any]] = []
    total = len(rows) + len(unreadable)
    with tqdm(desc="thumbnails", total=min(count, len(rows)), file=sys.stderr, delay=0.5, disable=quiet) as bar:
        for row in rows:
            if len(items) == count:
                break
            try:
                items.append(_item(row, log))
            except DataError as error:
                unreadable[row.name] = str(error)
            bar.update()
    write_text(page, _html(root, items, total))
    return Reviewed(page, len(items), total, unreadable)


def _chosen(rows: list[Row], log: CaptionLog, unreadable: dict[str, str]) -> list[Row]:
    """One row for each file, what needs a look first."""
    found: dict[str, Row] = {}
    for row in rows:
        try:
            found.setdefault(row.digest, row)
        except DataError as error:
            unreadable[row.name] = str(error)

    def rank(digest: str) -> tuple[int, str]:
        seen = log.corrected(digest) is not None
        return (2 if seen else int(bool(log.text(digest, found[digest].text)))), digest

    return [found[digest] for digest in sorted(found, key=rank)]


def _item(row: Row, log: CaptionLog) -> dict[str, Any]:
    """What the page knows of a picture."""
    picture = open_picture(lambda: BytesIO(read_bytes(row.file, DataError)), label=str(row.file))
    text, last = log.text(row.digest, row.text), log.last(row.digest)
    return {
        "sha256": row.digest,
        "name": row.name,
        "size": f"{picture.width}×{picture.height}",
        "text": text or "",
        "bad": last is not None and last.by_person and not last.caption.usable,
        "note": _note(last, own=log.is_own(row.digest, row.text)),
        "picture": _thumbnail(picture),
    }


def _note(last: Entry | None, *, own: bool) -> str:
    """Where the caption comes from, in words."""
    if own:
        return "text of the dataset's own"
    if last is None:
        return "not captioned yet"
    if last.by_person:
        return f"corrected by a person, {last.date[:10]}"
    who = last.caption.model or str(last.source.captioner)
    if last.caption.usable:
        return f"{who}, {last.date[:10]}"
    return f"{who} {'refused' if last.caption.refused else 'gave no caption'}: {last.caption.reason}"


def _thumbnail(picture: Image.Image) -> str:
    """A small JPEG as a data URI."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    stream = BytesIO()
    small.save(stream, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _html(root: Path, items: list[dict[str, Any]], total: int) -> str:
    """The page, with its style, its script and its data inside; only this one script may run."""
    script = (ASSETS / "review.js").read_text(encoding="utf-8")
    data = {
        "file": NAME,
        "format": FORMAT,
        "dataset": root.absolute().name,
        "total": total,
        "items": items,
    }
    parts = {
        "TITLE": html.escape(f"Captions of {data['dataset']}"),
        "STYLE": (ASSETS / "review.css").read_text(encoding="utf-8"),
        "HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "DATA": json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"),
        "SCRIPT": script,
    }
    pieces = (ASSETS / "review.html").read_text(encoding="utf-8").split("@@")
    return "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces))
