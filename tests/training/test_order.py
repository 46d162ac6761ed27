"""The order of batches: a function of the seed and the number, in which no picture is left out or comes twice."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d4k.errors import DataError
from d4k.seeds import numbered_seed
from d4k.training.data.order import Order, Turn

counts = st.lists(st.integers(0, 13), min_size=1, max_size=4).filter(any)
sizes = st.integers(1, 6)
seeds = st.integers(0, 2**32)


def bucketed(counts: list[int]) -> list[list[int]]:
    """Buckets of so many pictures each, their numbers spread over the dataset in turn."""
    left, buckets, number = list(counts), [[] for _ in counts], 0
    while any(left):
        for bucket, count in enumerate(left):
            if count:
                buckets[bucket].append(number)
                left[bucket] -= 1
                number += 1
    return buckets


def turns(order: Order, epochs: int) -> list[Turn]:
    return [order.turn(number) for number in range(order.batches_before(epochs))]


@given(counts, sizes, seeds)
def test_every_bucket_shows_each_of_its_pictures_once_in_an_epoch(counts: list[int], size: int, seed: int) -> None:
    """The pictures of a bucket's batches, one after the other, are one whole epoch after another."""
    buckets = bucketed(counts)
    found = turns(Order(buckets, seed, size), 5)
    for number, pictures in enumerate(buckets):
        stream = [
            pair for turn in found if turn.bucket == number for pair in zip(turn.epochs, turn.pictures, strict=True)
        ]
        assert len(stream) == 5 * len(pictures) // size * size
        wanted = [(place // len(pictures)) for place in range(len(stream))]
        assert [epoch for epoch, _ in stream] == wanted
        for epoch in set(wanted):
            shown = [picture for at, picture in stream if at == epoch]
            assert len(set(shown)) == len(shown)
            assert set(shown) <= set(pictures)
            assert epoch == max(wanted) or sorted(shown) == pictures


@given(counts, sizes, seeds)
def test_an_epoch_has_the_batches_that_end_in_it(counts: list[int], size: int, seed: int) -> None:
    """Of each bucket as many as its pictures fill up, so that no bucket runs ahead of another."""
    order = Order(bucketed(counts), seed, size)
    for epoch in range(4):
        first, last = order.batches_before(epoch), order.batches_before(epoch + 1)
        shown = Counter(order.turn(number).bucket for number in range(first, last))
        assert shown == Counter({b: (epoch + 1) * n // size - epoch * n // size for b, n in enumerate(counts)})
        assert all(order.epoch_of(number) == epoch for number in range(first, last))


@given(st.integers(1, 20), sizes, seeds)
def test_one_bucket_is_one_shuffle_of_all_pictures_after_another(count: int, size: int, seed: int) -> None:
    """As before there were buckets: batches are cut from shuffles of the dataset by (seed, epoch)."""
    stream: list[int] = []
    for epoch in range(3 * size):
        generator = torch.Generator().manual_seed(numbered_seed(seed, "order", epoch))
        stream += torch.randperm(count, generator=generator).tolist()
    order = Order([range(count)], seed, size)
    for number in range(3 * count):
        places = range(number * size, (number + 1) * size)
        assert order.turn(number) == Turn(
            0, tuple(stream[place] for place in places), tuple(place // count for place in places)
        )


@given(counts, sizes, seeds, st.integers(0, 60))
def test_a_batch_does_not_depend_on_those_before_it(counts: list[int], size: int, seed: int, first: int) -> None:
    """A run that resumes at any batch goes on as one that was never interrupted."""
    whole, resumed = (Order(bucketed(counts), seed, size) for _ in range(2))
    before = [whole.turn(number) for number in range(first + 10)]
    assert [resumed.turn(number) for number in range(first, first + 10)] == before[first:]


def test_buckets_are_mixed_within_an_epoch_and_otherwise_in_the_next() -> None:
    order = Order(bucketed([60, 60]), 0, 2)
    first, second = ([turn.bucket for turn in turns(order, 2)][start : start + 60] for start in (0, 60))
    assert sum(a != b for a, b in pairwise(first)) > 20
    assert sum(first) == sum(second) == 30
    assert first != second


def test_another_seed_gives_another_order() -> None:
    one, other = (Order(bucketed([20, 20]), seed, 2) for seed in (0, 1))
    assert turns(one, 1) != turns(other, 1)


def test_the_numbers_of_the_dataset_are_kept() -> None:
    """Pictures that were left out or held out have no turn."""
    found = turns(Order([[3, 90], [], [41]], 0, 1), 2)
    assert Counter((turn.bucket, *turn.pictures) for turn in found) == {(0, 3): 2, (0, 90): 2, (2, 41): 2}


def test_a_late_batch_of_many_pictures_is_found_without_those_before_it() -> None:
    """Batch 10^15 of 100,000 pictures: in an order that went through the epochs this test would not end."""
    order = Order([range(0, 100_000, 2), range(1, 100_000, 2)], 0, 8)
    turn = order.turn(10**15)
    assert {picture % 2 for picture in turn.pictures} == {turn.bucket}
    assert set(turn.epochs) == {10**15 * 8 // 100_000}


def test_no_picture_is_refused() -> None:
    with pytest.raises(DataError, match="no picture to train on"):
        Order([[], []], 0, 1)
