"""What a row of a table, or a line of `metadata.jsonl`, says of a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

__all__ = ["Row", "read_row"]

NAMES = {
    "path": ("path", "file_name", "file", "filename"),
    "url": ("url", "image_url"),
    "licence": ("licence", "license"),
    "author": ("author", "creator", "artist"),
    "source": ("source",),
    "text": ("text", "caption"),
}
"""What a column may be called; the first that has a value counts."""


@frozen
class Row:
    """One picture.

    Args:
        path: relative to the folder of the table, or absolute; None where there is none.
        url: None where there is none.
        licence: likewise, as all that follow.
        author: who made it.
        source: where it comes from.
        text: its caption.
    """

    path: str | None = None
    url: str | None = None
    licence: str | None = None
    author: str | None = None
    source: str | None = None
    text: str | None = None


def read_row(values: Mapping[str, Any]) -> Row:
    """What is known of these values; white space around them is dropped, and so are empty ones.

    >>> read_row({"file_name": "a.jpg", "license": "CC0", "caption": "  "})
    Row(path='a.jpg', url=None, licence='CC0', author=None, source=None, text=None)
    """
    return Row(**{field: _first(values, names) for field, names in NAMES.items()})


def _first(values: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    for name in names:
        value = values.get(name)
        words = "" if value is None or value != value else str(value).strip()  # NaN is how some write an empty cell
        if words:
            return words
    return None
