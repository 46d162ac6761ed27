"""Pyramids of tiles: put together they are the picture, and levels are what a viewer expects of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from d4k.report.data import LevelData
from d4k.report.tiles import THUMB, TILE, link_tiles, pyramid, tile_files, write_thumb, write_tiles

SIZES = [(1, 1), (512, 512), (513, 512), (1100, 700), (3, 1500)]


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def together(folder: Path, number: int, level: LevelData) -> Image.Image:
    """A level from its tiles."""
    whole = Image.new("RGB", (level.width, level.height))
    for row in range(level.rows):
        for column in range(level.columns):
            with Image.open(folder / str(number) / f"{column}_{row}.{level.format}") as tile:
                assert max(tile.size) <= TILE
                whole.paste(tile, (column * TILE, row * TILE))
    return whole


@pytest.mark.parametrize("size", SIZES)
def test_the_last_level_is_the_picture_to_the_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    """Whatever its size; and the files are those that the levels promise, no more."""
    picture = noise(*size)
    levels = write_tiles(picture, tmp_path / "t")
    assert levels == pyramid(*size)
    assert together(tmp_path / "t", len(levels) - 1, levels[-1]).tobytes() == picture.tobytes()
    found = {path.relative_to(tmp_path / "t").as_posix() for path in (tmp_path / "t").rglob("*.*")}
    assert found == set(tile_files(levels))


def test_smaller_levels_show_the_same_picture_without_aliasing(tmp_path: Path) -> None:
    """Near the mean of the pixels that each of theirs stands for, as JPEG keeps it; a fine checkerboard turns grey."""
    y, x = np.mgrid[:1024, :1500]
    smooth = np.stack([x // 6, y // 4, 255 - x // 6], -1).astype(np.uint8)
    levels = write_tiles(Image.fromarray(smooth), tmp_path / "smooth")
    assert [level.format for level in levels] == ["jpg", "jpg", "png"]
    small = np.asarray(together(tmp_path / "smooth", 1, levels[1]), float)
    mean = smooth.reshape(512, 2, 750, 2, 3).mean((1, 3))
    assert np.abs(small - mean).max() < 6
    board = np.where((x + y) % 2, 255, 0).astype(np.uint8)
    levels = write_tiles(Image.fromarray(np.stack([board] * 3, -1)), tmp_path / "board")
    assert np.abs(np.asarray(together(tmp_path / "board", 0, levels[0]), float) - 127.5).max() < 3


@given(st.integers(1, 20000), st.integers(1, 20000))
def test_levels_are_halves_down_to_one_tile(width: int, height: int) -> None:
    """As OpenSeadragon computes them: a level is `ceil(size * 2 ** -steps)`, in `ceil(size / 512)` tiles."""
    levels = pyramid(width, height)
    last = len(levels) - 1
    assert (levels[last].width, levels[last].height, levels[last].format) == (width, height, "png")
    assert (levels[0].columns, levels[0].rows) == (1, 1)
    assert last == 0 or max(levels[1].width, levels[1].height) > TILE
    for number, level in enumerate(levels):
        scale = 1 / (1 << (last - number))
        assert (level.width, level.height) == (np.ceil(width * scale), np.ceil(height * scale))
        assert (level.columns, level.rows) == (np.ceil(scale * width / TILE), np.ceil(scale * height / TILE))
        assert number == last or level.format == "jpg"


def test_tiles_of_an_earlier_report_are_linked_when_all_are_there(tmp_path: Path) -> None:
    """The same file under another name, so no time and no room; nothing is made where one is missing."""
    levels = write_tiles(noise(600, 520), tmp_path / "old" / "tiles" / "k")
    (tmp_path / "old" / "thumb.jpg").write_bytes(b"x")
    assert link_tiles(tmp_path / "old", tmp_path / "new", "tiles/k", levels, ["thumb.jpg"])
    for name in [*(f"tiles/k/{name}" for name in tile_files(levels)), "thumb.jpg"]:
        assert (tmp_path / "new" / name).samefile(tmp_path / "old" / name)
    assert not link_tiles(tmp_path / "old", tmp_path / "none", "tiles/k", levels, ["other.jpg"])
    (tmp_path / "old" / "tiles" / "k" / "1" / "1_1.png").unlink()
    assert not link_tiles(tmp_path / "old", tmp_path / "none", "tiles/k", levels)
    assert not (tmp_path / "none").exists()


def test_tiles_are_copied_where_the_file_system_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as FAT, or between two disks."""

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    levels = write_tiles(noise(20, 10), tmp_path / "old" / "k")
    assert link_tiles(tmp_path / "old", tmp_path / "new", "k", levels)
    assert (tmp_path / "new/k/0/0_0.png").read_bytes() == (tmp_path / "old/k/0/0_0.png").read_bytes()
    assert not (tmp_path / "new/k/0/0_0.png").samefile(tmp_path / "old/k/0/0_0.png")


@pytest.mark.parametrize(("size", "small"), [((4000, 1000), (THUMB, 96)), ((20, 10), (20, 10))])
def test_a_thumbnail_is_small_and_leaves_the_picture_alone(
    tmp_path: Path, size: tuple[int, int], small: tuple[int, int]
) -> None:
    """In proportion; never enlarged."""
    picture = noise(*size)
    before = picture.tobytes()
    write_thumb(picture, tmp_path / "t.jpg")
    assert (picture.size, picture.tobytes()) == (size, before)
    with Image.open(tmp_path / "t.jpg") as thumb:
        assert (thumb.size, thumb.format) == (small, "JPEG")
