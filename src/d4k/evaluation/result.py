"""What measuring a set of pictures leaves: scores, a line a picture, and what was wrong with files.

DIR/
  scores.json        all of it, as `Evaluation`
  rows/              the rows of the pictures, for resuming and for comparisons
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from d4k.protocols import Score

__all__ = ["FORMAT", "SCORES", "Evaluation", "Fault", "Picture"]

SCORES = "scores.json"
FORMAT = 2
"""Of `scores.json`."""


@frozen
class Picture:
    """One picture that was measured.

    Args:
        id: unique within its set; pairs the picture with that of another set where there are no prompts.
        file: path, relative to the folder of `scores.json` where it is below or beside it.
        sha256: of the file, in hexadecimal.
        width: pixels, upright.
        height: likewise.
        prompt: what it should show; None where it is not known.
        seed: it was sampled with; None where it is not known.
        reference: path of its reference picture, as `file`; None where there is none.
        values: the score of this picture alone by metric; without metrics of whole sets.
        keys: by metric, the key of its row in the store.
    """

    id: str
    file: str
    sha256: str
    width: int
    height: int
    prompt: str | None = None
    seed: int | None = None
    reference: str | None = None
    values: Mapping[str, float] = field(factory=dict)
    keys: Mapping[str, str] = field(factory=dict)


@frozen
class Fault:
    """Something about a file of the set.

    Args:
        file: path, as `Picture.file`.
        kind: "missing", "empty", "unreadable", "truncated", "giant", "duplicate", "unmeasurable" (left out); or
            "animated", "cmyk", "deep" (16 bits), "rotated" (measured, after the conversion that viewers make).
        reason: a sentence.
        left_out: whether the scores rest without it.
    """

    file: str
    kind: str
    reason: str
    left_out: bool


@frozen
class Evaluation:
    """One system measured.

    Args:
        name: of the system, such as the model's; a row of a table.
        scores: one a metric.
        pictures: those that were measured, in the order of the set.
        faults: what was wrong with files.
        references: keys of the rows of the set of reference pictures, by metric.
        rows: folder of the store of rows, relative to the folder of `scores.json`.
        about: whatever else a reader should know, such as the model, its size and licences; plain values.
    """

    name: str
    scores: tuple[Score, ...]
    pictures: tuple[Picture, ...] = ()
    faults: tuple[Fault, ...] = ()
    references: Mapping[str, tuple[str, ...]] = field(factory=dict)
    rows: str = "rows"
    about: Mapping[str, Any] = field(factory=dict)
