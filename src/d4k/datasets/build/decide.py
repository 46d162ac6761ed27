"""From what was seen to what becomes of each picture, and why."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from d4k.datasets.build.figures import Chosen
from d4k.datasets.build.settings import BuildSettings
from d4k.datasets.build.splits import split
from d4k.datasets.build.values import Decision, Listed, Seen
from d4k.datasets.filters import judge
from d4k.images.read import ENDINGS

__all__ = ["APART", "DUPLICATES", "decide"]

APART = "kept-apart"
DUPLICATES = "duplicates"
SHORT = 12
"""Digits of a digest in the name of a file."""


def decide(
    pictures: Sequence[Listed],
    seen: Sequence[Seen],
    chosen: Sequence[Chosen],
    groups: Sequence[Sequence[int]],
    settings: BuildSettings,
) -> list[Decision]:
    """Decide on every picture.

    A broken picture is out; then the filters are asked in their order, and the first that objects gives the reason.
    Of the duplicates that remain one stays: with a licence rather than without, then the one of more pixels, of more
    bytes, and the one named first. What has no licence is kept apart.

    Args:
        pictures: as sources name them.
        seen: of each of them.
        chosen: the filters.
        groups: indices of pictures that are the same to the eye; each index is in one group.
        settings: of the build.
    """
    decisions = [_by_itself(a, b, chosen, settings) for a, b in zip(pictures, seen, strict=True)]
    if not settings.keep_duplicates:
        for group in groups:
            _keep_one(decisions, [i for i in group if decisions[i].outcome in ("kept", "apart")])
    splits = split(
        [d.outcome for d in decisions], [d.seen.sha256 for d in decisions], groups, settings.eval, settings.seed
    )
    decisions = [evolve(decision, split=name) for decision, name in zip(decisions, splits, strict=True)]
    return _named(decisions)


def _by_itself(listed: Listed, seen: Seen, chosen: Sequence[Chosen], settings: BuildSettings) -> Decision:
    """What becomes of a picture if there is no other."""
    if listed.licence is None and settings.licence is not None:
        listed = evolve(listed, licence=settings.licence)
    if seen.broken is not None:
        return Decision(listed, seen, "broken", seen.broken)
    for one in chosen:
        reason = seen.refused.get(one.name) or judge(one.filter, seen.figures.get(one.name, {}))
        if reason is not None:
            return Decision(listed, seen, "rejected", reason, one.name)
    if listed.licence is None and settings.no_licence == "apart":
        return Decision(listed, seen, "apart", "it has no licence")
    return Decision(listed, seen, "kept")


def _keep_one(decisions: list[Decision], group: Sequence[int]) -> None:
    """Reject all of a group but the best."""

    def worth(index: int) -> tuple[bool, bool, int, int, int]:
        seen = decisions[index].seen
        licensed = decisions[index].listed.licence is not None
        return decisions[index].outcome == "kept", licensed, seen.width * seen.height, seen.bytes, -index

    best = max(group, key=worth, default=None)
    for index in group:
        if index != best and best is not None:
            name = decisions[best].listed.id
            decisions[index] = evolve(
                decisions[index],
                outcome="rejected",
                reason=f"the same picture as {name}",
                filter=DUPLICATES,
                duplicate_of=name,
            )


def _named(decisions: Sequence[Decision]) -> list[Decision]:
    """Give each picture of the dataset the name of its file there: that of its source, and a part of its digest."""
    names: Counter[str] = Counter()
    result = []
    for decision in decisions:
        if decision.split:
            stem = f"{_slug(decision.listed.id)}-{decision.seen.sha256[:SHORT]}"
            names[stem] += 1
            number = f"-{names[stem]}" if names[stem] > 1 else ""  # content that is there twice
            folder = f"{APART}/" if decision.outcome == "apart" else ""
            name = f"{folder}{decision.split}/images/{stem}{number}{_ending(decision)}"
            decision = evolve(decision, file_name=name)
        result.append(decision)
    return result


def _slug(name: str) -> str:
    """Letters and digits of a name that every file system takes."""
    plain = unicodedata.normalize("NFKD", Path(name).stem).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "picture"


def _ending(decision: Decision) -> str:
    own = decision.listed.path.suffix.lower() if decision.listed.path else ""
    return own if own in ENDINGS else f".{decision.seen.format.lower()}"
