"""Tiles cover a picture once, see what is around them, and lie where windows of attention do."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from d4k_spandrel.tiles import ALIGNED, context, enlarge, overlap_for, spans

SIZES = st.integers(1, 700), st.integers(16, 300), st.integers(0, 64)


@given(*SIZES)
def test_cores_are_the_axis_and_as_large_as_asked(size: int, tile: int, overlap: int) -> None:
    """One after the other without a gap, none larger than a tile, and none smaller than half of one."""
    found = spans(size, tile, min(overlap, tile))
    assert [found[0].begin, *(span.end for span in found)] == [*(span.begin for span in found), size]
    sides = [span.end - span.begin for span in found]
    assert max(sides) <= tile
    assert len(sides) == 1 or min(sides) >= tile // 2


@given(*SIZES)
def test_what_is_read_is_the_core_with_its_overlap_between_aligned_borders(size: int, tile: int, overlap: int) -> None:
    """At least the overlap, less than 32 pixels more, and nothing beyond the picture."""
    overlap = min(overlap, tile)
    for span in spans(size, tile, overlap):
        for read, core, end in ((span.start, span.begin, 0), (span.stop, span.end, size)):
            assert read == end or read % ALIGNED == 0
            assert read == end or overlap <= abs(core - read) < overlap + ALIGNED
        assert 0 <= span.start <= span.begin < span.end <= span.stop <= size


@given(*SIZES, st.integers(1, 4))
def test_weights_of_all_tiles_have_the_sum_one_and_end_where_only_context_is(
    size: int, tile: int, overlap: int, scale: int
) -> None:
    """Where a tile counts, the border of what it reads is at least three quarters of the overlap away."""
    overlap = min(overlap, tile)
    total = torch.zeros(size * scale)
    for span in spans(size, tile, overlap):
        weights = span.weights(scale, torch.device("cpu"))
        total[span.enlarged(scale)] += weights
        used = (weights > 0).nonzero()[:, 0] // scale + span.start
        assert span.start == 0 or int(used.min()) - span.start >= context(overlap)
        assert span.stop == size or span.stop - 1 - int(used.max()) >= context(overlap)
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)


@given(st.integers(0, 400))
def test_overlap_for_a_reach_is_the_least_that_gives_it_as_context(reach: int) -> None:
    """A pixel less would be too few."""
    overlap = overlap_for(reach)
    assert context(overlap) >= reach
    assert overlap == 0 or context(overlap - 1) < reach


def test_a_network_is_asked_for_no_more_than_a_tile_with_its_surroundings() -> None:
    """The size that memory is needed for, whatever the picture; a picture of one tile is read whole, and once."""
    asked: list[tuple[int, int]] = []

    def doubling(picture: Tensor) -> Tensor:
        asked.append((picture.shape[2], picture.shape[3]))
        return nn.functional.interpolate(picture, scale_factor=2)

    picture = torch.rand(1, 3, 300, 500)
    assert torch.allclose(enlarge(doubling, picture, 2, 64, lambda: 16), doubling(picture), atol=1e-6)
    assert max(max(sides) for sides in asked[:-1]) <= 64 + 2 * (16 + ALIGNED - 1)
    asked.clear()
    enlarge(doubling, picture, 2, 500, lambda: 1 // 0)
    assert asked == [(300, 500)]
