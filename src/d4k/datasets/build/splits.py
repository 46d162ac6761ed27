"""Which pictures models are compared on: whole groups of duplicates, drawn by number from the seed."""

from __future__ import annotations

from collections.abc import Sequence

from d4k.datasets.build.values import Outcome
from d4k.seeds import numbered_seed

__all__ = ["EVAL", "TRAIN", "split"]

TRAIN, EVAL = "train", "eval"


def split(
    outcomes: Sequence[Outcome], digests: Sequence[str], groups: Sequence[Sequence[int]], wanted: float, seed: int
) -> list[str]:
    """The split of each picture that is kept, or kept apart; empty for the others.

    Pictures of a group are all in one split. Groups are drawn in an order that depends on the seed and the digests of
    their pictures alone, so that new pictures change little.

    Args:
        outcomes: of all pictures.
        digests: of their files.
        groups: indices of pictures that are the same to the eye; each index is in one group.
        wanted: pictures in "eval": a count of 1 or more, or a share below 1. There are fewer where a group does not fit
            any more. Of the pictures that are kept apart the same share is taken.
        seed: of the build.

    >>> split(["kept", "kept", "rejected"], ["0a", "0b", "0c"], [[0], [1], [2]], 0.5, seed=0)
    ['eval', 'train', '']
    """
    splits = [TRAIN if outcome in ("kept", "apart") else "" for outcome in outcomes]
    room = _rooms(outcomes, wanted)
    ordered = sorted(groups, key=lambda group: _rank([digests[i] for i in group], seed))
    for kind, others in (("kept", "apart"), ("apart", "kept")):
        for group in ordered:
            inside = [i for i in group if outcomes[i] == kind]
            beside = [i for i in group if outcomes[i] == others]
            if not inside or len(inside) > room[kind] or (kind == "apart" and beside):
                continue  # a group with pictures of both kinds goes where those that were kept go
            room[kind] -= len(inside)
            room[others] -= len(beside)
            for i in (*inside, *beside):
                splits[i] = EVAL
    return splits


def _rooms(outcomes: Sequence[Outcome], wanted: float) -> dict[str, int]:
    """How many pictures of each kind are to be in "eval"."""
    kept = sum(outcome == "kept" for outcome in outcomes)
    share = wanted if wanted < 1 else min(1.0, wanted / max(kept, 1))
    return {kind: round(share * sum(outcome == kind for outcome in outcomes)) for kind in ("kept", "apart")}


def _rank(digests: Sequence[str], seed: int) -> tuple[int, str]:
    first = min(digests)
    return numbered_seed(seed, "split", int(first or "0", 16)), first
