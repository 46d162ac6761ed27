"""Splits: no picture that models are compared on has a duplicate among those they are trained on."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from d4k.datasets.build.splits import split

OUTCOMES = st.sampled_from(["kept", "apart", "rejected", "broken"])


@st.composite
def cases(draw):
    """Outcomes, digests and groups that are a partition."""
    labels = draw(st.lists(st.integers(0, 5), min_size=1, max_size=30))
    outcomes = [draw(OUTCOMES) for _ in labels]
    digests = [hashlib.sha256(f"{draw(st.integers(0, 10**6))}/{i}".encode()).hexdigest() for i in range(len(labels))]
    groups = [[i for i, own in enumerate(labels) if own == label] for label in sorted(set(labels))]
    return outcomes, digests, groups


@given(cases(), st.one_of(st.integers(0, 40), st.floats(0, 0.99)), st.integers(0, 2**31))
def test_a_group_is_in_one_split_and_eval_is_never_larger_than_asked_for(case, wanted, seed):
    outcomes, digests, groups = case
    splits = split(outcomes, digests, groups, wanted, seed)
    for group in groups:
        assert len({splits[i] for i in group if splits[i]}) <= 1
    assert [bool(name) for name in splits] == [outcome in ("kept", "apart") for outcome in outcomes]
    kept = outcomes.count("kept")
    taken = sum(name == "eval" and outcome == "kept" for name, outcome in zip(splits, outcomes, strict=True))
    assert taken <= (wanted if wanted >= 1 else round(wanted * kept))


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 2**31))
def test_without_duplicates_eval_has_exactly_the_count(wanted, count, seed):
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(count)]
    splits = split(["kept"] * count, digests, [[i] for i in range(count)], wanted, seed)
    assert splits.count("eval") == min(wanted, count)


@given(cases(), st.randoms(use_true_random=False), st.integers(0, 2**31))
def test_the_order_in_which_pictures_are_named_is_of_no_account(case, random, seed):
    outcomes, digests, groups = case
    order = list(range(len(outcomes)))
    random.shuffle(order)
    places = {old: new for new, old in enumerate(order)}
    moved = split(
        [outcomes[i] for i in order],
        [digests[i] for i in order],
        [sorted(places[i] for i in group) for group in reversed(groups)],
        0.4,
        seed,
    )
    assert moved == [split(outcomes, digests, groups, 0.4, seed)[i] for i in order]


def test_seeds_draw_other_pictures():
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(100)]
    drawn = {tuple(split(["kept"] * 100, digests, [[i] for i in range(100)], 10, seed)) for seed in range(5)}
    assert len(drawn) == 5


def test_a_new_picture_moves_few_of_the_others():
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(101)]
    before = split(["kept"] * 100, digests[:100], [[i] for i in range(100)], 10, 0)
    after = split(["kept"] * 101, digests, [[i] for i in range(101)], 10, 0)
    assert sum(a != b for a, b in zip(before, after, strict=False)) <= 1
