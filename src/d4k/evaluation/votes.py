"""What people preferred: votes that a report exported, and win rates with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from d4k.config import number, one_of, optional, shown, text, text_or_empty, whole
from d4k.errors import ConfigError, DataError, did_you_mean
from d4k.files import read_json
from d4k.records import read_record

__all__ = ["FORMAT", "KIND", "Poll", "Vote", "Votes", "WinRate", "count_votes", "read_votes", "win_rate", "win_rates"]

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


@frozen
class Poll:
    """What people preferred, all together.

    Args:
        rates: win rates, of every two systems between which somebody voted.
        voters: people; without a name, each sitting is a person.
        count: votes that count.
        repeated: votes that do not count, since the same person voted on the same pair again later.
        left: how often the picture shown on the left was preferred to that on the right; None where all are ties.
    """

    rates: tuple[WinRate, ...]
    voters: int
    count: int
    repeated: int
    left: WinRate | None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the rates must know, a sentence each."""
        if not self.count:
            return ("Nobody voted.",)
        people = "1 person" if self.voters == 1 else f"{self.voters} people"
        said = [f"Votes: {people} gave {self.count}; a tie counts half for both, and no vote is weighted."]
        if self.repeated:
            said.append(
                f"Votes: {self.repeated} more do not count, since the same person voted on the same pair again: "
                "the last vote counts."
            )
        if self.left is not None:
            low, high = (f"{100 * end:.0f}" for end in self.left.interval)
            said.append(
                f"Votes: the picture on the left was preferred in {100 * self.left.rate:.0f} % [{low}, {high}] of the "
                f"{self.left.count} that are no ties"
                + ("; this is more than chance, so the side told in the vote." if self.left.real else ".")
            )
        return tuple(said)


def read_votes(path: Path, systems: Sequence[str] | None = None) -> Votes:
    """Read votes that a report exported; whatever is wrong with the file is one sentence.

    Args:
        path: of the file.
        systems: names that may be voted for; None lets any pass.

    Raises:
        DataError: it cannot be read, is something else, or a vote in it is not allowed.
    """
    votes = read_record(Votes, read_json(path, DataError), path, DataError)
    for place, vote in enumerate(votes.votes):
        if vote.a == vote.b:
            raise DataError(f"{path}: votes[{place}] is between {shown(vote.a)} and itself", path)
    if systems is not None:
        _check_known(votes, systems, str(path))
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


def count_votes(files: Sequence[Votes], systems: Sequence[str]) -> Poll:
    """Count the votes of several files together.

    Every vote counts alike, whoever gave it: the interval is that of so many independent votes, and is too narrow where
    few people or few prompts gave most of them. Where one person voted on one pair more than once, also in several
    files, the last vote counts.

    Args:
        files: of several people.
        systems: names of all systems, in their order; a rate is that of the later one over the earlier one.

    Raises:
        DataError: a vote is for a system that is not among them.
    """
    order = {name: place for place, name in enumerate(systems)}
    given = 0
    last: dict[Hashable, Vote] = {}
    voters: set[Hashable] = set()
    for place, votes in sorted(enumerate(files), key=lambda file: file[1].created):
        _check_known(votes, systems, f"file {place + 1} of votes")
        voter: Hashable = votes.voter or (votes.created, votes.report, () if votes.created else votes.votes)
        for vote in votes.votes:
            given += 1
            voters.add(voter)
            last[voter, vote.row, vote.prompt, frozenset((vote.a, vote.b))] = vote
    counts: Counter[tuple[str, str, str]] = Counter()
    for vote in last.values():
        first, second = sorted((vote.a, vote.b), key=order.__getitem__)
        preferred = {"a": vote.a, "b": vote.b}.get(vote.choice, "")
        counts[second, first, "tie" if not preferred else "win" if preferred == second else "loss"] += 1
    pairs = sorted({key[:2] for key in counts}, key=lambda pair: (order[pair[1]], order[pair[0]]))
    rates = [win_rate(*pair, *(counts[*pair, end] for end in ("win", "loss", "tie"))) for pair in pairs]
    return Poll(tuple(rates), len(voters), len(last), given - len(last), _left(last.values()))


def win_rates(files: Sequence[Votes], systems: Sequence[str]) -> list[WinRate]:
    """The win rates of `count_votes`.

    Args:
        files: of several people.
        systems: names of all systems, in their order.

    Raises:
        DataError: a vote is for a system that is not among them.
    """
    return list(count_votes(files, systems).rates)


def _left(votes: Iterable[Vote]) -> WinRate | None:
    decided = Counter(vote.choice == vote.left for vote in votes if vote.choice != "tie")
    return win_rate("left", "right", decided[True], decided[False]) if decided else None


def _check_known(votes: Votes, systems: Sequence[str], where: str) -> None:
    for place, vote in enumerate(votes.votes):
        for key, name in (("a", vote.a), ("b", vote.b)):
            if name not in systems:
                raise DataError(
                    f"{where}: votes[{place}]: {key} is {shown(name)}, which is not compared"
                    f"{did_you_mean(name, systems)} Compared: {', '.join(systems)}. Name its folder, too"
                )
