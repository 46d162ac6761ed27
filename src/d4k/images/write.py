"""Writing a picture with the recipe that made it, and reading that recipe again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from d4k.errors import ConfigError, DataError
from d4k.files import atomic_file, parse_json
from d4k.images.read import MAX_PIXELS, reading

__all__ = ["COMMENT_PREFIX", "EXIF_LIMIT", "WRITTEN", "read_recipe", "save_picture"]

WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
EXIF_LIMIT = 65_000  # bytes; a JPEG segment ends at 65,533, headers included
COMMENT_PREFIX = b"ASCII\0\0\0"  # names the encoding of an EXIF UserComment


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
    with reading(path, MAX_PIXELS, "") as image:
        text = image.info.get("d4k") or _user_comment(image)
    if not isinstance(text, str) or not text:
        raise DataError(f"{path} carries no recipe; only pictures written by d4k do", path)
    try:
        recipe = parse_json(text, f"the recipe in {path}", DataError)
    except DataError as error:
        raise DataError(f"{error}; generate the picture again", path) from error
    if not isinstance(recipe, dict):
        raise DataError(f"the recipe in {path} is not a JSON object; generate the picture again", path)
    return recipe


def _png_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    chunk = PngInfo()
    chunk.add_itxt("d4k", _as_json(recipe))
    return {"pnginfo": chunk}


def _as_json(recipe: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    try:
        text = json.dumps(dict(recipe), ensure_ascii=ascii_only, allow_nan=False)
        parse_json(text, "it", DataError)  # what is written can be read
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the recipe cannot be kept in a picture: {error}") from error
    return text


def _exif_recipe(recipe: Mapping[str, Any], path: Path) -> dict[str, Any]:
    text = _as_json(recipe, ascii_only=True).encode("ascii")
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
