"""Votes: read as somebody else's file, counted by hand, and their intervals SciPy's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from d4k.errors import DataError
from d4k.evaluation.votes import count_votes, read_votes, win_rate, win_rates


def vote(choice: str = "a", a: str = "old", b: str = "new", row: int = 1, **more: Any) -> dict[str, Any]:
    return {"row": str(row), "prompt": "a cat", "a": a, "b": b, "choice": choice, "left": "b", "seconds": 1.5, **more}


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
    one = read_votes(write(tmp_path / "1.json", vote("b"), vote("a", a="new", b="old", row=2), vote("tie", row=3)))
    two = read_votes(write(tmp_path / "2.json", vote("a"), vote("b", b="third")))
    first, second = win_rates([one, two], ["old", "new", "third"])
    assert (first.a, first.b, first.wins, first.losses, first.ties, first.rate) == ("new", "old", 2, 1, 1, 2.5 / 4)
    assert (second.a, second.b, second.wins, second.count) == ("third", "old", 1, 1)


def test_unknown_systems_are_refused_by_file_key_and_name(tmp_path: Path) -> None:
    """While it is read where the systems are known, and when votes are counted."""
    file = write(tmp_path / "1.json", vote(row=1, b="old", a="news"), vote(row=2))
    message = r"votes\[1\]: b is 'new', which is not compared; did you mean 'news'\? Compared: old, news\."
    with pytest.raises(DataError, match=rf"1\.json: {message}"):
        read_votes(file, ["old", "news"])
    with pytest.raises(DataError, match=f"file 2 of votes: {message}"):
        count_votes([read_votes(write(tmp_path / "0.json")), read_votes(file)], ["old", "news"])
    assert len(read_votes(file, ["old", "news", "new"]).votes) == 2


def test_a_second_vote_of_a_person_on_a_pair_replaces_the_first(tmp_path: Path) -> None:
    """Whichever file is named first, and whichever system is a; another row, pair or person is another vote."""
    early = write(tmp_path / "1.json", vote("a"), vote("a", row=2), voter="anna", created="2026-11-25T08:00:00Z")
    late = write(tmp_path / "2.json", vote("a", a="new", b="old"), voter="anna", created="2026-11-25T09:00:00Z")
    other = write(tmp_path / "3.json", vote("a"), vote("a", b="third"), voter="ben", created="2026-11-25T07:00:00Z")
    for order in ([early, late, other], [other, late, early]):
        poll = count_votes([read_votes(file) for file in order], ["old", "new", "third"])
        assert (poll.voters, poll.count, poll.repeated) == (2, 4, 1)
        assert [(r.a, r.b, r.wins, r.losses) for r in poll.rates] == [("new", "old", 1, 2), ("third", "old", 0, 1)]
        assert "1 more do not count, since the same person voted on the same pair again" in poll.remarks[1]


def test_sittings_without_a_name_are_of_other_people(tmp_path: Path) -> None:
    """A file that is named twice, or saved before the end and at the end, adds only what is new."""
    one = read_votes(write(tmp_path / "1.json", vote("a"), voter="", created="2026-11-25T08:00:00Z"))
    two = read_votes(write(tmp_path / "2.json", vote("b"), voter="", created="2026-11-25T09:00:00Z"))
    later = read_votes(write(tmp_path / "3.json", vote("a"), vote("b", row=2), voter="", created=one.created))
    poll = count_votes([one, two, one], ["old", "new"])
    assert (poll.voters, poll.count, poll.repeated, poll.rates[0].rate) == (2, 2, 1, 0.5)
    assert poll.remarks[0].startswith("Votes: 2 people gave 2;")
    poll = count_votes([one, two, later], ["old", "new"])
    assert (poll.voters, poll.count, poll.repeated) == (2, 3, 1)


def test_the_side_is_counted_whatever_system_was_there(tmp_path: Path) -> None:
    """Twelve times left and ten times right are chance; a person who always takes the left one is not."""
    sides = [vote("ab"[n % 2], left="ab"[(n + (n >= 12)) % 2], row=n) for n in range(22)]
    poll = count_votes([read_votes(write(tmp_path / "1.json", *sides, vote("tie", row=99)))], ["old", "new"])
    assert poll.left is not None
    assert (poll.left.wins, poll.left.losses, poll.left.count, poll.left.real) == (12, 10, 22, False)
    assert poll.remarks[-1].startswith("Votes: the picture on the left was preferred in 55 % [")
    lazy = [vote("ab"[n % 2], left="ab"[n % 2], row=n) for n in range(20)]
    poll = count_votes([read_votes(write(tmp_path / "2.json", *lazy))], ["old", "new"])
    assert (poll.rates[0].rate, poll.left and poll.left.rate) == (0.5, 1.0)
    assert "100 % [84, 100] of the 20 that are no ties; this is more than chance" in poll.remarks[-1]


def test_no_votes_are_said(tmp_path: Path) -> None:
    poll = count_votes([read_votes(write(tmp_path / "1.json"))], ["old", "new"])
    assert (poll.rates, poll.voters, poll.left, poll.remarks) == ((), 0, None, ("Nobody voted.",))


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
