"""Votes: read as somebody else's file, counted by hand, and their intervals SciPy's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from d4k.errors import DataError
from d4k.evaluation.votes import read_votes, win_rate, win_rates


def vote(choice: str = "a", a: str = "old", b: str = "new", **more: Any) -> dict[str, Any]:
    return {"row": "1", "prompt": "a cat", "a": a, "b": b, "choice": choice, "left": "b", "seconds": 1.5, **more}


def write(path: Path, *votes: Any, **more: Any) -> Path:
    head = {"format": 1, "kind": "d4k-votes", "report": "r", "created": "2026-11-25T00:00:00Z", "voter": path.stem}
    path.write_text(json.dumps({**head, "votes": list(votes), **more}))
    return path


def test_votes_are_read_as_the_report_wrote_them(tmp_path: Path) -> None:
    """A row without a prompt, and a key of a newer d4k."""
    votes = read_votes(write(tmp_path / "anna.json", vote(), vote("tie", prompt=None), later=1))
    assert (votes.voter, votes.report, len(votes.votes)) == ("anna", "r", 2)
    assert (votes.votes[0].choice, votes.votes[1].prompt) == ("a", None)


@pytest.mark.parametrize(
    ("votes", "more", "message"),
    [
        ([vote("c")], {}, r"votes\[0\]: choice must be one of a, b, tie, got 'c'"),
        ([vote(), {"row": "1"}], {}, r"votes\[1\]: missing key 'a'"),
        ([vote(seconds=-1)], {}, r"votes\[0\]: seconds must be a number of at least 0"),
        ([vote(a="x", b="x")], {}, r"votes\[0\] is between 'x' and itself"),
        ([3], {}, r"votes\[0\] must hold a JSON object"),
        ([], {"kind": "other"}, "kind must be one of d4k-votes, got 'other'"),
        ([], {"format": 2}, "format must be a whole number from 1 to 1, got 2"),
        ([], {"votes": {}}, "votes must be a list, got dict"),
    ],
)
def test_a_file_that_is_wrong_is_one_sentence(tmp_path: Path, votes: Any, more: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_votes(write(tmp_path / "v.json", *votes, **more))
    assert "v.json" in str(caught.value)


def test_votes_of_several_people_are_added_up(tmp_path: Path) -> None:
    """Whichever of the two is a; ties count half, and the rate is that of the later system."""
    one = read_votes(write(tmp_path / "1.json", vote("b"), vote("a", a="new", b="old"), vote("tie")))
    two = read_votes(write(tmp_path / "2.json", vote("a"), vote("b", b="third")))
    first, second = win_rates([one, two], ["old", "new", "third"])
    assert (first.a, first.b, first.wins, first.losses, first.ties, first.rate) == ("new", "old", 2, 1, 1, 2.5 / 4)
    assert (second.a, second.b, second.wins, second.count) == ("third", "old", 1, 1)


def test_unknown_systems_and_votes_named_twice_are_refused(tmp_path: Path) -> None:
    votes = read_votes(write(tmp_path / "1.json", vote()))
    with pytest.raises(DataError, match="'new', which is not compared; did you mean 'news'. Compared: old, news."):
        win_rates([votes], ["old", "news"])
    with pytest.raises(DataError, match="the same votes are named twice"):
        win_rates([votes, votes], ["old", "new"])


@pytest.mark.parametrize(("wins", "losses"), [(7, 3), (0, 5), (5, 0), (60, 40), (1, 0)])
def test_interval_is_that_of_wilson(wins: int, losses: int) -> None:
    """As SciPy computes it; it is real where it excludes one half."""
    rate = win_rate("a", "b", wins, losses)
    theirs = scipy.stats.binomtest(wins, wins + losses).proportion_ci(method="wilson")
    assert rate.interval == pytest.approx((theirs.low, theirs.high))
    assert rate.real is not (theirs.low <= 0.5 <= theirs.high)


def test_only_ties_are_one_half() -> None:
    rate = win_rate("a", "b", 0, 0, 10)
    assert (rate.rate, rate.real) == (0.5, False)
    with pytest.raises(DataError, match="nobody voted between a and b"):
        win_rate("a", "b", 0, 0)
