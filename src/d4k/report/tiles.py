"""Pictures as pyramids of tiles, so that a browser loads what it shows and no more.

The last level is the picture itself in lossless tiles, each level before it half as large, and level 0 fits into one
tile. A tile is the file `{level}/{column}_{row}.{format}`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from d4k.report.data import LevelData

__all__ = ["TILE", "link_tiles", "pyramid", "tile_files", "write_thumb", "write_tiles"]

TILE = 512
"""Pixels a side of a tile."""

THUMB = 384
"""Pixels that a thumbnail is wide and high at most."""

PNG: dict[str, Any] = {"compress_level": 1, "compress_type": 3}
"""Of the lossless tiles. Runs only (type 3 of zlib): of photographs that is smaller than the default and takes three
quarters of the time, since noise holds no strings that repeat."""

JPEG: dict[str, Any] = {"quality": 90, "subsampling": 0}


def pyramid(width: int, height: int) -> tuple[LevelData, ...]:
    """The levels of a picture, the smallest first.

    >>> [(level.width, level.columns, level.format) for level in pyramid(1025, 600)]
    [(257, 1, 'jpg'), (513, 2, 'jpg'), (1025, 3, 'png')]
    """
    sizes = [(width, height)]
    while max(sizes[-1]) > TILE:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return tuple(
        LevelData(w, h, -(-w // TILE), -(-h // TILE), "png" if (w, h) == (width, height) else "jpg")
        for w, h in reversed(sizes)
    )


def tile_files(levels: tuple[LevelData, ...]) -> Iterator[str]:
    """The path of every tile below the folder of the picture."""
    for number, level in enumerate(levels):
        for row in range(level.rows):
            for column in range(level.columns):
                yield f"{number}/{column}_{row}.{level.format}"


def write_tiles(picture: Image.Image, folder: Path) -> tuple[LevelData, ...]:
    """Write all tiles of a picture.

    Each level is the mean of 2x2 pixels of the next one.

    Args:
        picture: 8-bit RGB.
        folder: is made.

    Returns:
        The levels.

    Raises:
        OSError: the folder cannot be written.
    """
    levels = pyramid(*picture.size)
    for number in reversed(range(len(levels))):
        level = levels[number]
        (folder / str(number)).mkdir(parents=True)
        for row in range(level.rows):
            for column in range(level.columns):
                left, top = column * TILE, row * TILE
                tile = picture.crop((left, top, min(left + TILE, level.width), min(top + TILE, level.height)))
                options = PNG if level.format == "png" else JPEG
                tile.save(folder / str(number) / f"{column}_{row}.{level.format}", **options)
        if number:
            picture = picture.reduce(2)
    return levels


def link_tiles(
    earlier: Path, folder: Path, tiles: str, levels: tuple[LevelData, ...], others: Sequence[str] = ()
) -> bool:
    """Take over the tiles that an earlier report has of the same picture, as links where the file system has them.

    Args:
        earlier: folder of that report; need not exist.
        folder: of the new one.
        tiles: path of the folder of the tiles in both.
        levels: of the picture.
        others: paths of further files of the picture.

    Returns:
        Whether all of them were there; nothing is made otherwise.

    Raises:
        OSError: the folder cannot be written.
    """
    names = [*(f"{tiles}/{name}" for name in tile_files(levels)), *others]
    if not all((earlier / name).is_file() for name in names):
        return False
    for number in range(len(levels)):
        (folder / tiles / str(number)).mkdir(parents=True)
    for name in names:
        try:
            os.link(earlier / name, folder / name)
        except OSError:
            shutil.copyfile(earlier / name, folder / name)
    return True


def write_thumb(picture: Image.Image, file: Path) -> None:
    """Write a picture as a small JPEG.

    Raises:
        OSError: the file cannot be written.
    """
    scale = min(1.0, THUMB / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3).save(file, "JPEG", quality=85)
