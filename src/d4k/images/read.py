"""Reading pictures as correct 8-bit RGB, whatever their mode, orientation and profile."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError

from d4k.errors import DataError
from d4k.files import is_file, is_folder
from d4k.images.upright import upright_size

__all__ = ["ENDINGS", "FORMATS", "MAX_PIXELS", "list_pictures", "open_picture", "picture_size"]

MAX_PIXELS = 300_000_000
"""Pixels a picture may have by its header; above it is taken for a decompression bomb."""


FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})


def open_picture(
    source: Path | Callable[[], BinaryIO], *, max_pixels: int = MAX_PIXELS, label: str = ""
) -> Image.Image:
    """Read a picture as 8-bit RGB, the way a viewer would show it.

    EXIF orientation is applied. An embedded ICC profile is converted to sRGB (perceptual intent); one that is broken or
    belongs to another colour space is passed over. Transparency is laid on white. Of several pages or frames the first
    is read. 16-bit grey is scaled and rounded; of 16-bit colours Pillow keeps the high byte. Greys of 32 bits or in
    floating point do not say what is white: it is taken to be the smallest of 65,535 and 2^31 - 1 (for floats: 1, 255
    and 65,535) that no value exceeds, or else the largest value.

    Args:
        source: a path, or a callable that opens a binary stream.
        max_pixels: refuse more than this by the header, before anything is decoded.
        label: what error messages call the picture; the path when empty.

    Returns:
        The decoded picture, mode RGB, without metadata.

    Raises:
        DataError: the picture is missing, truncated, too large, or not PNG, JPEG, WebP, TIFF or BMP.
    """
    with reading(source, max_pixels, label) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        picture = _to_rgb(image)
        picture.info = {}  # the profile and the orientation no longer describe these pixels
        return picture


def picture_size(
    source: Path | Callable[[], BinaryIO], *, max_pixels: int = MAX_PIXELS, label: str = "", upright: bool = False
) -> tuple[int, int]:
    """Width and height in pixels; reads the header only.

    Args:
        source: a path, or a callable that opens a binary stream.
        max_pixels: refuse more than this.
        label: what error messages call the picture; the path when empty.
        upright: after the EXIF rotation, as `open_picture` has it, and not as stored.

    Raises:
        DataError: as `open_picture`, as far as the header shows it.
    """
    with reading(source, max_pixels, label) as image:
        return upright_size(image) if upright else image.size


def list_pictures(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The pictures of a folder, sorted by path; hidden files and folders are left out.

    Args:
        folder: where to look.
        recursive: look in the folders below, too.

    Raises:
        DataError: the folder is missing or holds no picture.
    """
    if not is_folder(folder, DataError):
        raise DataError(f"{folder} is not a folder; name one that holds pictures", folder)
    found = [
        path
        for path in _below(folder, recursive=recursive)
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and is_file(path, DataError)
    ]
    if not found:
        deeper = not recursive and any(path.suffix.lower() in ENDINGS for path in _below(folder, recursive=True))
        hint = "; there are some in folders below, which recursive = true takes" if deeper else ""
        raise DataError(f"{folder} holds no picture{hint}; looked for {', '.join(sorted(ENDINGS))}", folder)
    return sorted(found)


def _below(folder: Path, *, recursive: bool) -> Iterator[Path]:
    """What a folder holds. `Path.glob` would leave out in silence what may not be read."""

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"cannot list {error.filename or folder}: {error.strerror or error}", folder) from error

    for parent, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = [name for name in inner if recursive and not name.startswith(".")]
        yield from (Path(parent) / name for name in names)


class _PillowLimit:
    """Turns Pillow's own pixel limit off while pictures are read: it is one number for the whole process, and lower.

    Readers in several threads share the change; the last one out restores what the first one found.
    """

    def __init__(self) -> None:
        self.lock, self.readers = threading.Lock(), 0
        self.before: int | None = None

    @contextmanager
    def off(self) -> Iterator[None]:
        with self.lock:
            if self.readers == 0:
                self.before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.readers += 1
        try:
            yield
        finally:
            with self.lock:
                self.readers -= 1
                if self.readers == 0:
                    Image.MAX_IMAGE_PIXELS = self.before


_pillow_limit = _PillowLimit()


@contextmanager
def reading(source: Path | Callable[[], BinaryIO], max_pixels: int, label: str) -> Iterator[Image.Image]:
    """Open a picture without decoding it and check its size; what goes wrong in the block becomes a DataError."""
    where = source if isinstance(source, Path) else label or None
    name = label or where or "without a name"
    try:
        with ExitStack() as stack:
            stack.enter_context(_pillow_limit.off())
            stream = stack.enter_context(source.open("rb") if isinstance(source, Path) else source())
            image = stack.enter_context(Image.open(stream, formats=FORMATS))
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(
                    f"picture {name} has {width}x{height} pixels, more than the {max_pixels:,} allowed; "
                    "scale it down or leave it out",
                    where,
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"picture {name} does not exist; check the path", where) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"picture {name} cannot be read as PNG, JPEG, WebP, TIFF or BMP; convert it or leave it out", where
        ) from error
    except Exception as error:  # on damaged files decoders raise nearly anything: SyntaxError, struct.error, KeyError
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise DataError(f"picture {name} cannot be read: {reason}; replace it or leave it out", where) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _deep_grey(image)
    alpha = None
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
    elif image.mode in ("1", "P"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    picture = _to_srgb(image, profile) if profile else image.convert("RGB")
    if alpha is not None:
        paper = Image.new("RGB", picture.size, "white")
        paper.paste(picture, mask=alpha)
        return paper
    return picture


def _deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, 32 bits or floating point as 8 bits (L, or LA where one value means transparent)."""
    values = np.asarray(image)
    white = 65535.0
    if image.mode in ("I", "F"):
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are not finite")
        steps = (65535, 2**31 - 1) if image.mode == "I" else (1, 255, 65535)
        white = float(next((step for step in steps if values.max() <= step), values.max()))
    grey = np.rint(np.clip(values / np.float32(white), 0, 1) * 255).astype(np.uint8)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0:
        grey = 255 - grey  # PhotometricInterpretation 0: white is zero; Pillow inverts 8-bit pictures only
    result = Image.fromarray(grey)
    if "transparency" in image.info:
        opaque = values != image.info["transparency"]
        result.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
    return result


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")
    assert converted is not None  # it is None for conversions in place only
    return converted
