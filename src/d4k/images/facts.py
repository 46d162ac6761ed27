"""What the header of a picture says that a reader of its measurement must know."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from attrs import frozen
from PIL import Image

from d4k.images.read import reading
from d4k.images.upright import orientation, upright_size

__all__ = ["PictureFacts", "is_cut_short", "picture_facts"]

PNG, JPEG, RIFF, BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF", b"BM"


@frozen
class PictureFacts:
    """What a header says.

    Args:
        width: pixels, upright.
        height: likewise.
        mode: of Pillow, such as "RGB" or "CMYK".
        frames: pictures in the file; `open_picture` reads the first.
        deep: whether a channel has more than 8 bits.
        orientation: EXIF orientation; 1 is upright.
    """

    width: int
    height: int
    mode: str
    frames: int
    deep: bool
    orientation: int


def picture_facts(
    source: Path | Callable[[], BinaryIO], *, max_pixels: int = sys.maxsize, label: str = ""
) -> PictureFacts:
    """What the header of a picture says, without decoding it.

    Args:
        source: a path, or a callable that opens a binary stream.
        max_pixels: refuse more than this.
        label: what error messages call the picture; the path when empty.

    Raises:
        DataError: as `open_picture`, as far as the header shows it.
    """
    with reading(source, max_pixels, label) as image:
        width, height = upright_size(image)
        return PictureFacts(width, height, image.mode, _frames(image), _is_deep(image), orientation(image))


def is_cut_short(content: bytes) -> bool:
    """Whether a file that cannot be decoded ends before its picture does, as its own structure tells.

    Args:
        content: all bytes of a PNG, JPEG, WebP or BMP file; of others it is not known, and False.
    """
    if PNG.startswith(content[:8]) and content[:4] == PNG[:4]:
        return b"IEND" not in content[-64:]
    if content.startswith(JPEG):
        return content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda") or content.rfind(b"\xff\xda") < 0
    if content.startswith(RIFF):
        return len(content) < 12 or int.from_bytes(content[4:8], "little") + 8 > len(content)
    if content.startswith(BMP):
        return int.from_bytes(content[2:6], "little") > len(content)
    return False


def _frames(image: Image.Image) -> int:
    with suppress(Exception):  # a damaged second page does not keep the first from being read
        return int(getattr(image, "n_frames", 1))
    return 1


def _is_deep(image: Image.Image) -> bool:
    tiles = repr(getattr(image, "tile", ""))
    return image.mode in ("I", "F") or ";16" in image.mode or (image.format in ("PNG", "TIFF") and ";16" in tiles)
