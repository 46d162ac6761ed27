"""Near duplicates: found whatever was done to a picture, and not found between pictures of different things."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.Image import Transpose

from d4k import Picture
from d4k.datasets.duplicates import Fingerprint, fingerprint, groups
from d4k.images import open_picture

PHOTOGRAPHS = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg", "cell.png",
    "camera.png", "coins.png", "clock_motion.png", "ihc.png", "brick.png", "grass.png", "gravel.png",
    "motorcycle_left.png",
)  # fmt: skip
Change = Callable[[Image.Image], Image.Image]


@cache
def photograph(name: str) -> Image.Image:
    import skimage

    return open_picture(Path(skimage.__file__).parent / "data" / name)


@cache
def originals() -> list[Fingerprint]:
    return [print_of(photograph(name)) for name in PHOTOGRAPHS]


def print_of(image: Image.Image) -> Fingerprint:
    return fingerprint(Picture(np.asarray(image)))


def cropped(left: float, top: float, right: float, bottom: float) -> Change:
    """Shares of width and height that are cut off."""

    def change(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))

    return change


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file).convert("RGB")


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 10, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


FOUND: dict[str, tuple[Change, int]] = {
    "a quarter turn": (lambda i: i.transpose(Transpose.ROTATE_90), 15),
    "half a turn": (lambda i: i.transpose(Transpose.ROTATE_180), 15),
    "mirrored": (ImageOps.mirror, 15),
    "mirrored and turned": (lambda i: i.transpose(Transpose.TRANSVERSE), 15),
    "half the size": (lambda i: i.resize((i.width // 2, i.height // 2)), 15),
    "JPEG, quality 30": (compressed, 15),
    "noise, sigma 10": (noisy, 15),
    "darker": (lambda i: i.point(lambda value: int(value * 0.8)), 15),
    "5 % cropped, all around": (cropped(0.025, 0.025, 0.025, 0.025), 15),
    "5 % cropped on one side": (cropped(0.05, 0, 0, 0), 13),
    "5 % cropped on two sides": (cropped(0, 0.05, 0.05, 0), 7),
    "mirrored and 5 % cropped": (lambda i: cropped(0.025, 0.025, 0.025, 0.025)(ImageOps.mirror(i)), 12),
}
"""What was done to the fifteen photographs, and how many of the copies are found by default."""


@pytest.mark.parametrize("done", FOUND)
def test_copies_are_found(done: str) -> None:
    """As many as the table in the docs says, or more, each beside its original and beside nothing else."""
    change, wanted = FOUND[done]
    copies = [print_of(change(photograph(name))) for name in PHOTOGRAPHS]
    found = groups([*originals(), *copies])
    assert all(group == [group[0], group[0] + len(PHOTOGRAPHS)] for group in found), found
    assert len(found) >= wanted


def test_photographs_of_different_things_are_no_copies() -> None:
    """Of 105 pairs none."""
    assert groups(originals()) == []


@given(st.lists(st.integers(0, 3), max_size=12))
def test_groups_are_those_of_all_pairs(choices: list[int]) -> None:
    """Against comparing every pair by itself and joining what meets."""
    prints = [Fingerprint((2 ** (20 * c) - 1,) * 8, (2 ** (20 * c) - 1,) * 2) for c in choices]
    together = [{i} for i in range(len(prints))]
    for i, j in combinations(range(len(prints)), 2):
        if (prints[i].turned[0] ^ prints[j].turned[0]).bit_count() <= 14:
            one = next(group for group in together if i in group)
            other = next(group for group in together if j in group)
            if one is not other:
                together.remove(other)
                one |= other
    assert groups(prints) == sorted(sorted(group) for group in together if len(group) > 1)


def test_large_sets_are_compared_across_blocks() -> None:
    """The first and the last of 1,100 are the same; the others are drawn at random."""
    rng = np.random.default_rng(0)
    prints = [
        Fingerprint(tuple(int.from_bytes(rng.bytes(10)) for _ in range(8)), (int.from_bytes(rng.bytes(10)),) * 2)
        for _ in range(1100)
    ]
    assert groups([*prints[:-1], prints[0]]) == [[0, 1099]]


def test_a_fingerprint_is_kept_as_text() -> None:
    """And read back."""
    for one in originals()[:3]:
        assert Fingerprint.from_text(one.to_text()) == one


def test_turning_needs_no_second_look() -> None:
    """The hashes of the orientations are those of the turned pictures, but for bits that lie at the median."""
    image = photograph("coffee.png")
    whole = print_of(image)
    for turn in (Transpose.FLIP_LEFT_RIGHT, Transpose.FLIP_TOP_BOTTOM, Transpose.ROTATE_180, Transpose.TRANSPOSE):
        turned = print_of(image.transpose(turn)).turned[0]
        assert min((turned ^ one).bit_count() for one in whole.turned) <= 4
