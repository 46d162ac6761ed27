"""The size that a picture has once it is turned as its EXIF orientation says, from its header."""

from __future__ import annotations

import struct
from typing import IO

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

__all__ = ["orientation", "upright_size"]

TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

SIGNATURE = 8
"""Bytes of a PNG before its first chunk."""


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture after its EXIF rotation.

    The pixels are decoded only of a PNG with text or EXIF behind them, where the orientation may be.

    Args:
        image: opened, not loaded.
    """
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return width, height  # Pillow gives the size of a TIFF as it is after its rotation
    return (height, width) if orientation(image) in TURNED else (width, height)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened picture, from 1 (upright) to 8; 1 where there is none.

    Args:
        image: opened, not loaded.
    """
    if isinstance(image, PngImagePlugin.PngImageFile) and _ends_with_pixels(image.fp):
        exif = Image.Image.getexif(image)  # that of PNG would decode the pixels to look behind them
    else:
        exif = image.getexif()
    found = exif.get(ExifTags.Base.Orientation)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _ends_with_pixels(stream: IO[bytes] | None) -> bool:
    """Whether no chunk behind the pixels of a PNG may hold an orientation; leaves the stream where it was."""
    if stream is None or not stream.seekable():
        return False
    start, seen_pixels = stream.tell(), False
    try:
        stream.seek(SIGNATURE)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if seen_pixels and kind in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"):
                return False
            seen_pixels = seen_pixels or kind == b"IDAT"
            stream.seek(length + 4, 1)
        return True
    finally:
        stream.seek(start)
