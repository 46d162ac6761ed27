"""The sizes on the way to a large picture: read, settled, and refused."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4k import LatentSpec
from d4k.errors import ConfigError
from d4k.sampling import Stage, auto_stages, read_size, stage_sizes

F8, F16 = LatentSpec(16, 8, 2), LatentSpec(16, 16, 2)


@pytest.mark.parametrize(
    ("asked", "width", "height", "sizes"),
    [
        (None, None, None, [(1024, 1024)]),
        (None, 512, None, [(512, 1024)]),
        ("1024,2048", None, None, [(1024, 1024), (2048, 2048)]),
        ("1024, 2048 ,4096", 4096, 3072, [(1024, 768), (2048, 1536), (4096, 3072)]),
        ([1024, 4096], 3072, 4096, [(768, 1024), (3072, 4096)]),
        (["1024x512", (2048, 1024)], None, None, [(1024, 512), (2048, 1024)]),
        ("1000,3000", 3000, 1000, [(1000, 336), (3000, 1000)]),  # the shorter side is rounded, the other kept
        (2048, None, None, [(2048, 2048)]),
        ("64,200", None, None, [(64, 64), (200, 200)]),  # what does not suit the model is refused later, as such
        ("auto", None, None, [(1024, 1024)]),
        ("AUTO", 512, 512, [(512, 512)]),
        ("auto", 1200, 1200, [(1200, 1200)]),  # nearly its own size
        ("auto", 4096, 4096, [(1024, 1024), (2048, 2048), (4096, 4096)]),
        ("auto", 2560, 2560, [(1024, 1024), (2048, 2048), (2560, 2560)]),
        ("auto", 2400, 2400, [(1024, 1024), (2400, 2400)]),
    ],
)
def test_sizes_are_read_as_a_user_writes_them(asked: Any, width: Any, height: Any, sizes: list[Any]) -> None:
    assert stage_sizes(asked, width, height, 1024, F8) == sizes


def test_a_latent_of_sixteenth_size_rounds_to_its_own_granularity() -> None:
    """Of F16 a token is 32 pixels."""
    assert stage_sizes("1024,4096", 4096, 2720, 2048, F16)[0] == (1024, 672)
    assert stage_sizes("auto", 4096, 2720, 2048, F16)[0] == (2528, 1664)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("", "a stage must be a side in pixels, such as 1024, or a size, such as 1024x768; got ''"),
        ("1024,big", "got 'big'"),
        ("1024x768x3", "got '1024x768x3'"),
        ("-64,128", "got '-64'"),
        ([512.5, 1024], "got 512.5"),
        ([True], "got True"),
        ([None], "got None"),
        ([], "no stage was given"),
        ("2048,1024", "1024x1024 comes after 2048x2048; order them by size"),
        ("1024,1024", "1024x1024 comes after 1024x1024"),
        ("512x2048,1024x1024", "1024x1024 comes after 512x2048"),
        (
            "1024x512,2048x2048",
            "one aspect, but 2048x2048 comes after 1024x512, which it would stretch; give 1024x1024 in place of 1024",
        ),
    ],
)
def test_what_cannot_be_read_or_does_not_grow_is_refused(asked: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage_sizes(asked, None, None, 1024, F8)


def test_stages_must_end_with_the_size_asked_for() -> None:
    with pytest.raises(ConfigError, match="the last of the stages is 2048x2048, but 4096x4096 is asked for"):
        stage_sizes("1024,2048", 4096, 4096, 1024, F8)


@given(st.integers(1, 256), st.integers(1, 256), st.sampled_from([256, 1000, 1024]), st.sampled_from([F8, F16]))
def test_auto_stages_grow_to_the_size_at_its_aspect(rows: int, columns: int, own: int, latent: LatentSpec) -> None:
    """Each is larger than the one before, at most 2.6 times a side; the first is the model's own area, or the last."""
    unit = latent.granularity
    size = (columns * unit, rows * unit)
    found = auto_stages(size, own, unit)
    assert found[-1] == size
    for small, large in pairwise(found):
        assert small != large
        assert all(one <= other for one, other in zip(small, large, strict=True))
    for width, height in found:
        assert width % unit == height % unit == 0
        if min(width, height) > unit:
            assert abs(width - height * size[0] / size[1]) <= unit * (1 + size[0] / size[1])
    first = found[0][0] * found[0][1]
    if len(found) > 1 and min(found[0]) > unit:
        assert abs(first - own * own) <= unit * sum(found[0]) / 2 + unit * unit


def test_one_side_is_the_longer_one() -> None:
    assert read_size(1024, (3072, 4096), 16) == (768, 1024)
    assert read_size(" 1024X768 ", (1, 1), 16) == (1024, 768)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"restart": 0.0}, "restart must be a number above 0 and at most 1, got 0.0"),
        ({"restart": 1.5}, "restart must be"),
        ({"steps": 0}, "steps must be a whole number of at least 1"),
        ({"guidance": -1}, "guidance must be"),
        ({"width": 0}, "width must be"),
        ({"shift": 0}, "shift must be a number above 0, got 0, or 'scheduler'"),
    ],
)
def test_a_stage_refuses_values_out_of_range(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attrs.evolve(Stage(64, 64, 4, 1.0), **changed)
