"""The size of a picture as it is seen, from its header."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import ExifTags, Image

from d4k.images import open_picture, picture_size

XMP = (
    b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/>'
    b"</x:xmpmeta>"
)
HEADER, END = 33, 12
"""Bytes of a PNG up to the end of its header, and of its last chunk."""


def stored(kind: str, orientation: int = 1, **how: Any) -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", (9, 6)).save(stream, kind, exif=exif, **how)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sizes(data: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """By the header, and of the decoded picture."""
    return picture_size(lambda: io.BytesIO(data), upright=True), open_picture(lambda: io.BytesIO(data)).size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "how"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {})],
)
def test_the_header_says_the_size_of_the_upright_picture(kind: str, how: dict[str, Any], orientation: int) -> None:
    """In every format; BMP has no orientation."""
    header, decoded = sizes(stored(kind, orientation, **how))
    assert header == decoded == ((6, 9) if orientation > 4 and kind != "BMP" else (9, 6))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", [b"eXIf", b"iTXt"])
def test_an_orientation_counts_before_and_behind_the_pixels_of_a_png(kind: bytes, behind: bool) -> None:
    """Editors write XMP behind them."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    extra = chunk(kind, exif.tobytes().removeprefix(b"Exif\0\0") if kind == b"eXIf" else XMP)
    stream = io.BytesIO()
    Image.new("RGB", (9, 6)).save(stream, "PNG")
    plain = stream.getvalue()
    place = len(plain) - END if behind else HEADER
    header, decoded = sizes(plain[:place] + extra + plain[place:])
    assert header == decoded == (6, 9)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_no_pixel_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 pictures are looked at before a run."""
    data = stored(kind, 6)

    def refuse(*_: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", refuse)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert picture_size(lambda: io.BytesIO(data), upright=True) == (6, 9)


def test_the_size_as_stored_stays_the_default() -> None:
    data = stored("JPEG", 6)
    assert picture_size(lambda: io.BytesIO(data)) == (9, 6)
