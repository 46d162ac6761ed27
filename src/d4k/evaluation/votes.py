"""What people preferred: votes that a report exported, and win rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from d4k.config import number, one_of, optional, text, text_or_empty, whole
from d4k.errors import ConfigError, DataError, did_you_mean
from d4k.files import read_json
from d4k.records import read_record

__all__ = ["FORMAT", "KIND", "Vote", "Votes", "WinRate", "read_votes", "win_rate", "win_rates"]

KIND, FORMAT = "d4k-votes", 1
"""Of the file."""


@frozen
class Vote:
    """One choice between two pictures of a row, made without knowing whose they are.

    Args:
        row: id of the row.
        a: name of one system.
        b: name of the other.
        choice: "a", "b" or "tie".
        left: which of them was shown on the left.
        prompt: of the row; None where it has none.
        seconds: that the choice took.
    """

    row: str = field(validator=text())
    a: str = field(validator=text())
    b: str = field(validator=text())
    choice: str = field(validator=one_of("a", "b", "tie"))
    left: str = field(validator=one_of("a", "b"))
    prompt: str | None = field(default=None, validator=optional(text_or_empty()))
    seconds: float | None = field(default=None, validator=optional(number(0)))


def _votes(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    if not isinstance(value, list):
        raise ConfigError(f"votes must be a list, got {type(value).__name__}")
    return tuple(read_record(Vote, each, f"votes[{place}]", ConfigError) for place, each in enumerate(value))


@frozen
class Votes:
    """The votes of one person in one sitting.

    Args:
        votes: in the order in which they were given.
        format: of the file.
        kind: of the file.
        report: title of the report.
        created: ISO 8601.
        voter: whatever the person is called; may be empty.
    """

    votes: tuple[Vote, ...] = field(converter=_votes)
    kind: str = field(validator=one_of(KIND))
    format: int = field(validator=whole(1, FORMAT))
    report: str = field(default="", validator=text_or_empty())
    created: str = field(default="", validator=text_or_empty())
    voter: str = field(default="", validator=text_or_empty())


@frozen
class WinRate:
    """How often people preferred one system to another.

    Args:
        a: name of the system whose rate it is.
        b: name of the other.
        wins: votes for a.
        losses: votes for b.
        ties: votes for neither.
        count: votes.
        rate: `(wins + ties / 2) / count`: a tie counts half.
        interval: of the rate, 95 %, after Wilson.
        real: whether the interval excludes one half.
    """

    a: str
    b: str
    wins: int
    losses: int
    ties: int
    count: int
    rate: float
    interval: tuple[float, float]
    real: bool


def read_votes(path: Path) -> Votes:
    """Read votes that a report exported; whatever is wrong with the file is one sentence.

    Raises:
        DataError: it cannot be read, is something else, or a vote in it is not allowed.
    """
    votes = read_record(Votes, read_json(path, DataError), path, DataError)
    for place, vote in enumerate(votes.votes):
        if vote.a == vote.b:
            raise DataError(f"{path}: votes[{place}] is between '{vote.a}' and itself", path)
    return votes


def win_rate(a: str, b: str, wins: int, losses: int, ties: int = 0) -> WinRate:
    """The win rate of `a` over `b` with its 95 % Wilson interval, a tie counting half for both.

    Raises:
        DataError: there are no votes.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22(158), 1927.

    >>> rate = win_rate("new", "old", wins=7, losses=3)
    >>> rate.rate, [round(end, 3) for end in rate.interval], rate.real
    (0.7, [0.397, 0.892], False)
    """
    from scipy.stats import norm

    count = wins + losses + ties
    if not count:
        raise DataError(f"nobody voted between {a} and {b}")
    rate, z = (wins + ties / 2) / count, float(norm.ppf(0.975))
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return WinRate(a, b, wins, losses, ties, count, rate, (low, high), not low <= 0.5 <= high)


def win_rates(files: Sequence[Votes], systems: Sequence[str]) -> list[WinRate]:
    """Win rates of all votes together, for every two systems between which somebody voted.

    Every vote counts alike, whoever gave it: the interval is that of so many independent votes, and is too narrow where
    few people or few prompts gave most of them.

    Args:
        files: of several people.
        systems: names of all systems, in their order; the rate is that of the later one over the earlier one.

    Raises:
        DataError: a vote is for a system that is not among them, or one sitting is there twice.
    """
    sittings = [(votes.voter, votes.created, votes.report, votes.votes) for votes in files]
    if len(set(sittings)) < len(sittings):
        raise DataError("the same votes are named twice; name each file once")
    counts: dict[tuple[str, str], list[int]] = {}
    for vote in (vote for votes in files for vote in votes.votes):
        for name in (vote.a, vote.b):
            if name not in systems:
                raise DataError(
                    f"a vote is for '{name}', which is not compared{did_you_mean(name, systems)} "
                    f"Compared: {', '.join(systems)}. Name its folder, too"
                )
        first, second = sorted((vote.a, vote.b), key=list(systems).index)
        preferred = {"a": vote.a, "b": vote.b}.get(vote.choice)
        tally = counts.setdefault((first, second), [0, 0, 0])
        tally[2 if preferred is None else 0 if preferred == second else 1] += 1
    order = sorted(counts, key=lambda pair: [list(systems).index(name) for name in pair])
    return [win_rate(second, first, *counts[first, second]) for first, second in order]
