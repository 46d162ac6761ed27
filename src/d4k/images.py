"""Pictures: reading them as correct RGB, cropping, turning them into tensors and back, writing them with their recipe.

Pixels are 8-bit RGB, as PIL pictures or as uint8 tensors (3, H, W); in flight through a model, float32 in [-1, 1].
"""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from attrs import field, frozen
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from d4k.errors import ConfigError, DataError
from d4k.files import atomic_file

__all__ = [
    "MAX_PIXELS",
    "Crop",
    "list_pictures",
    "open_picture",
    "picture_size",
    "read_recipe",
    "save_picture",
    "to_float",
    "to_picture",
    "to_tensor",
    "to_uint8",
]

MAX_PIXELS = 300_000_000
"""Pixels a picture may have by its header; above it is taken for a decompression bomb."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
EXIF_LIMIT = 65_000  # bytes; a JPEG segment ends at 65,533, headers included
COMMENT_PREFIX = b"ASCII\0\0\0"  # names the encoding of an EXIF UserComment


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
    with _reading(source, max_pixels, label) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        picture = _to_rgb(image)
        picture.info = {}  # the profile and the orientation no longer describe these pixels
        return picture


def picture_size(
    source: Path | Callable[[], BinaryIO], *, max_pixels: int = MAX_PIXELS, label: str = ""
) -> tuple[int, int]:
    """Width and height in pixels as stored, before any EXIF rotation; reads the header only.

    Args:
        source: a path, or a callable that opens a binary stream.
        max_pixels: refuse more than this.
        label: what error messages call the picture; the path when empty.

    Raises:
        DataError: as `open_picture`, as far as the header shows it.
    """
    with _reading(source, max_pixels, label) as image:
        return image.size


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as a uint8 tensor (3, H, W).

    Raises:
        DataError: the picture is not in mode RGB.

    >>> to_tensor(Image.new("RGB", (4, 2))).shape
    torch.Size([3, 2, 4])
    """
    if image.mode != "RGB":
        raise DataError(f"a picture of mode {image.mode} cannot become a tensor; allowed: RGB. Try: open_picture")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def to_float(pixels: Tensor) -> Tensor:
    """`pixels / 127.5 - 1`: uint8 of any shape to float32 in [-1, 1].

    >>> to_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return pixels.to(torch.float32) / 127.5 - 1


def to_uint8(pixels: Tensor) -> Tensor:
    """Inverse of `to_float`: [-1, 1] of any shape to uint8, rounded half to even; what lies outside is clamped.

    >>> to_uint8(torch.tensor([-3.0, 0.25, 1.0]))
    tensor([  0, 159, 255], dtype=torch.uint8)
    """
    return ((pixels.to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_picture(pixels: Tensor) -> Image.Image:
    """A uint8 tensor (3, H, W) as an RGB picture; inverse of `to_tensor`."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())


@frozen
class Crop:
    """Resize a picture until it just covers a size, and cut that size out of it.

    The scale is `max(height / H, width / W)`, with Lanczos resampling; the cut is made on whole pixels of the result.

    Args:
        height: of the result in pixels.
        width: of the result in pixels.
        position: `center`, or `random` by the seed.
        flip: mirror every second picture, by the seed.

    >>> Crop(32, 64)(Image.new("RGB", (300, 200)), seed=0).size
    (64, 32)
    """

    height: int = field()
    width: int = field()
    position: Literal["center", "random"] = field(default="center")
    flip: bool = False

    @height.validator
    @width.validator
    def _check_side(self, attribute: Any, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{attribute.name} is {value!r}; it must be a whole number of pixels, at least 1")

    @position.validator
    def _check_position(self, attribute: Any, value: str) -> None:
        if value not in ("center", "random"):
            raise ValueError(f"{attribute.name} is {value!r}; allowed: center, random")

    def __call__(self, image: Image.Image, seed: int) -> Image.Image:
        """Crop a picture; equal seeds give equal results.

        Args:
            image: any size.
            seed: 0 or more; decides the random position and the flip, independently.

        Returns:
            A picture of `width` by `height`, in the mode of `image`.
        """
        rng = random.Random(seed)
        draws = rng.random(), rng.random()
        x, y = draws if self.position == "random" else (0.5, 0.5)
        scale = max(self.height / image.height, self.width / image.width)
        left, right = _span(image.width, self.width, scale, x)
        top, bottom = _span(image.height, self.height, scale, y)
        size = self.width, self.height
        result = image.resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))
        return ImageOps.mirror(result) if self.flip and rng.random() < 0.5 else result


def _span(length: int, wanted: int, scale: float, where: float) -> tuple[float, float]:
    """Where a cut of `wanted` pixels after scaling starts and ends in a side of `length` pixels before it."""
    offset = int(where * (round(length * scale) - wanted + 1))
    start = max(0.0, min(offset / scale, length - wanted / scale))
    return start, min(start + wanted / scale, float(length))


def save_picture(image: Image.Image, path: Path, *, recipe: Mapping[str, Any] | None = None, quality: int = 95) -> None:
    """Write a picture, whole or not at all, with the recipe that made it.

    The recipe is JSON: in a PNG the text chunk `d4k`, in a JPEG or WebP the EXIF tag UserComment.

    Args:
        image: RGB.
        path: its ending decides the format: .png, .jpg, .jpeg or .webp.
        recipe: anything JSON can hold.
        quality: 1 to 100, of JPEG and lossy WebP; PNG loses nothing.

    Raises:
        ConfigError: the ending is unknown, or the recipe too long for the format.
        OutputError: the file cannot be written; what was there before is untouched.
    """
    kind = WRITTEN.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"cannot write {path.name}: unknown ending '{path.suffix}'; allowed: {', '.join(WRITTEN)}")
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": quality}
    if recipe is not None:
        options |= _png_recipe(recipe) if kind == "PNG" else _exif_recipe(recipe, path)
    with atomic_file(path) as temporary:
        image.save(temporary, format=kind, **options)


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe that `save_picture` stored in a picture.

    Raises:
        DataError: the picture cannot be read, carries no recipe, or carries a malformed one.
    """
    with _reading(path, MAX_PIXELS, "") as image:
        text = image.info.get("d4k") or _user_comment(image)
    if not text:
        raise DataError(f"{path} carries no recipe; only pictures written by d4k do", path)
    try:
        recipe = json.loads(text)
    except ValueError as error:
        raise DataError(f"the recipe in {path} is not JSON ({error}); generate the picture again", path) from error
    if not isinstance(recipe, dict):
        raise DataError(f"the recipe in {path} is not a JSON object; generate the picture again", path)
    return recipe


def list_pictures(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The pictures of a folder, sorted by path; hidden files and folders are left out.

    Args:
        folder: where to look.
        recursive: look in the folders below, too.

    Raises:
        DataError: the folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; name one that holds pictures", folder)
    found = [
        path
        for path in folder.glob("**/*" if recursive else "*")
        if path.suffix.lower() in ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    if not found:
        raise DataError(f"{folder} holds no picture; looked for {', '.join(sorted(ENDINGS))}", folder)
    return sorted(found)


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
def _reading(source: Path | Callable[[], BinaryIO], max_pixels: int, label: str) -> Iterator[Image.Image]:
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


def _png_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    chunk = PngInfo()
    chunk.add_itxt("d4k", json.dumps(dict(recipe), ensure_ascii=False))
    return {"pnginfo": chunk}


def _exif_recipe(recipe: Mapping[str, Any], path: Path) -> dict[str, Any]:
    text = json.dumps(dict(recipe)).encode("ascii")
    if len(text) > EXIF_LIMIT:
        raise ConfigError(
            f"cannot write {path.name}: its recipe has {len(text)} bytes, EXIF holds {EXIF_LIMIT}; write a .png instead"
        )
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = COMMENT_PREFIX + text
    return {"exif": exif}


def _user_comment(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    return comment.removeprefix(COMMENT_PREFIX).decode("ascii", "replace") if isinstance(comment, bytes) else ""
