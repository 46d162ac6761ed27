"""Pictures that are the same to the eye, from the fingerprints that the log of a scan keeps."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from d4k.datasets.build.figures import figures_key
from d4k.datasets.build.values import Seen
from d4k.datasets.duplicates import Fingerprint, groups

__all__ = ["alike", "fingerprint_key"]


def fingerprint_key() -> str:
    """The key under which fingerprints are kept: those of another version may be others."""
    return figures_key({"fingerprint": version("d4k")})


def alike(seen: Sequence[Seen], distance: int) -> list[list[int]]:
    """Indices of pictures in groups that are the same to the eye; each picture is in one, though it be alone.

    Args:
        seen: of all pictures; one without a fingerprint is like no other.
        distance: bits in which two fingerprints of a group may differ.
    """
    known = [index for index, one in enumerate(seen) if one.fingerprint]
    prints = [Fingerprint.from_text(seen[index].fingerprint) for index in known]
    found = [[known[place] for place in group] for group in groups(prints, distance)]
    grouped = {index for group in found for index in group}
    return sorted([*found, *([index] for index in range(len(seen)) if index not in grouped)])
