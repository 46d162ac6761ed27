"""Buckets: sizes of equal cost, and the one that suits a picture."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from d4k import LatentSpec
from d4k.config import DataSettings
from d4k.errors import ConfigError
from d4k.training.data.buckets import auto_sizes, bucket_of, bucket_sizes, nearest_size

side = st.integers(1, 6000)
size = st.tuples(side, side)
sizes = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=8, unique=True)


@given(
    st.sampled_from([8, 16, 32]), st.sampled_from([1, 2]), st.integers(4, 160), st.integers(4, 160), st.integers(1, 3)
)
def test_auto_sizes_cost_as_many_tokens_and_suit_the_backbone(
    downscale: int, patch: int, columns: int, rows: int, room: int
) -> None:
    """Up to 1 % fewer; multiples of the granularity that the positions cover; lying and standing alike."""
    unit = downscale * patch
    width, height = columns * unit, rows * unit
    latent = LatentSpec(16, downscale, patch, max_size=max(width, height) * room)
    found = auto_sizes(latent, width, height)
    assert found[0] == (width, height)
    assert len(set(found)) == len(found)
    for wide, high in found[1:]:
        assert wide % unit == high % unit == 0
        assert max(wide, high) <= max(width, height) * room
        assert 0.99 * columns * rows <= latent.tokens(high, wide) <= columns * rows
        assert 1 / 2.13 < wide / high < 2.13
        assert (high, wide) in found


@pytest.mark.parametrize(("downscale", "budget"), [(8, 2048), (16, 2048), (8, 4096), (16, 4096), (16, 3072)])
def test_auto_has_a_size_near_every_common_shape(downscale: int, budget: int) -> None:
    """At 2K to 4K, with F8 and F16."""
    found = auto_sizes(LatentSpec(16, downscale, 2), budget, budget)
    for shape in (1, 5 / 4, 4 / 3, 3 / 2, 16 / 9, 2, 3 / 4, 2 / 3, 9 / 16):
        assert min(abs(math.log(w / h / shape)) for w, h in found) < math.log(1.04)


def test_positions_that_reach_no_further_leave_the_square_alone() -> None:
    assert auto_sizes(LatentSpec(16, 8, 2, max_size=1024), 1024, 1024) == ((1024, 1024),)


@given(size, sizes, st.booleans())
def test_a_picture_goes_to_the_nearest_shape_that_it_fills(
    picture: tuple[int, int], sizes: list[tuple[int, int]], enlarge: bool
) -> None:
    """Compared with a search over all buckets; what is within rounding of the limits may go either way."""

    def factor(bucket: tuple[int, int]) -> float:
        shapes = picture[0] * bucket[1], picture[1] * bucket[0]
        return max(shapes) / min(shapes)

    assume(all(abs(factor(bucket) - 2) > 1e-6 for bucket in sizes))
    near = [bucket for bucket in sizes if factor(bucket) <= 2]
    filled = [bucket for bucket in near if picture[0] >= bucket[0] and picture[1] >= bucket[1]]
    found = bucket_of(picture, sizes, enlarge=enlarge)
    if not near:
        assert found == "shape"
    elif not filled and not enlarge:
        assert found == "small"
    else:
        among = filled or near
        assert isinstance(found, int)
        assert sizes[found] in among
        assert factor(sizes[found]) == pytest.approx(min(map(factor, among)), rel=1e-6)


@given(size, sizes)
def test_nothing_is_enlarged_unless_asked(picture: tuple[int, int], sizes: list[tuple[int, int]]) -> None:
    for any_shape in (False, True):
        found = bucket_of(picture, sizes, enlarge=False, any_shape=any_shape)
        assert isinstance(found, str) or (picture[0] >= sizes[found][0] and picture[1] >= sizes[found][1])


def test_where_all_are_cut_to_one_size_no_shape_is_too_far() -> None:
    assert bucket_of((4000, 100), [(64, 64)], enlarge=False) == "shape"
    assert bucket_of((4000, 100), [(64, 64)], enlarge=False, any_shape=True) == 0


def test_of_sizes_of_one_shape_the_largest_that_is_filled_counts() -> None:
    sizes = [(1024, 1024), (4096, 4096), (2048, 2048)]
    assert [bucket_of((n, n), sizes, enlarge=False) for n in (1024, 2047, 2048, 9000)] == [0, 0, 2, 1]
    assert nearest_size((100, 90), sizes) == (4096, 4096)


class TestSizesOfARun:
    """What `data.width`, `data.height` and `data.buckets` say, checked against the backbone."""

    def test_off_is_one_size(self, backbone: Any) -> None:
        assert bucket_sizes(backbone, DataSettings()) == ((16, 16),)
        assert bucket_sizes(backbone, DataSettings(width=24, height=8)) == ((24, 8),)

    def test_auto_has_the_tokens_of_that_size(self, backbone: Any) -> None:
        found = bucket_sizes(backbone, DataSettings(width=48, height=48, buckets="auto"))
        assert found == ((48, 48), (64, 36), (52, 44), (44, 52), (36, 64))

    def test_named_sizes_are_taken_as_they_are(self, backbone: Any) -> None:
        assert bucket_sizes(backbone, DataSettings(buckets=("24x16", "16x24", "24x16"))) == ((24, 16), (16, 24))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"buckets": ("18x16",)}, "width 18 is not a multiple of 4; nearest: 16 or 20"),
            ({"buckets": ("16x16", "16x128")}, "covers at most 64 pixels; asked for height 128"),
            ({"width": 18}, "width 18 is not a multiple of 4"),
            ({"width": 18, "buckets": "auto"}, "width 18 is not a multiple of 4"),
            ({"width": 16, "buckets": ("16x16",)}, r"have no effect beside buckets that are named \(16x16\)"),
        ],
    )
    def test_a_size_that_cannot_be_is_refused(self, backbone: Any, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            bucket_sizes(backbone, DataSettings(**settings))
