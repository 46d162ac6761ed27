"""Stages: the sizes on the way to a large picture, each sampled from the enlarged picture of the one before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import attrs
from attrs import field, frozen

from d4k.config import number, whole
from d4k.errors import ConfigError
from d4k.protocols import LatentSpec

__all__ = ["SCHEDULER", "Size", "Stage", "auto_stages", "check_shift", "read_size", "stage_sizes"]

SCHEDULER = "scheduler"
"""In place of a shift: that of the model's own scheduler."""

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

SMALL_STEP = 1.25
"""Two stages whose sides differ by less than this factor become one."""


def check_shift(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Accept a number above 0, or the word "scheduler"; a validator.

    Raises:
        ConfigError: it is neither.
    """
    if value == SCHEDULER:
        return
    try:
        number(0, above=True)(owner, attribute, value)
    except ConfigError as error:
        raise ConfigError(
            f"{error}, or 'scheduler' for that of the model's own scheduler; 1 changes nothing"
        ) from error


@frozen
class Stage:
    """One size on the way to a picture, and what it is sampled with.

    Args:
        width: pixels.
        height: pixels.
        steps: steps of the scheduler, of which a stage that begins below noise takes the last part.
        guidance: scale of the guidance; 0 or more.
        shift: moves noise levels towards 1, above 0; "scheduler" is the shift of the model's own scheduler.
        restart: noise level in (0, 1] that the stage begins at, the first of its schedule at or below; 1 is noise.
    """

    width: int = field(validator=whole(1))
    height: int = field(validator=whole(1))
    steps: int = field(validator=whole(1))
    guidance: float = field(validator=number(0))
    shift: float | Literal["scheduler"] = field(default=SCHEDULER, validator=check_shift)
    restart: float = field(default=1.0, validator=number(0, 1, above=True))

    @property
    def scheduler_shift(self) -> float | None:
        """The shift as `Backbone.scheduler` takes it: None is that of the model's own scheduler."""
        return None if self.shift == SCHEDULER else float(self.shift)


def stage_sizes(
    asked: str | int | Sequence[Any] | None, width: int | None, height: int | None, own: int, latent: LatentSpec
) -> list[Size]:
    """The sizes that a picture passes through, the last of which is its own.

    Args:
        asked: "auto"; or sizes, smallest first, as a sequence or with commas between them. A number is the longer side
            of a picture at the aspect asked for, and "1024x768" or (1024, 768) a width and height. None is one size.
            A shorter side that is not given is rounded; what is given must suit the model.
        width: of the picture in pixels; None is that of the last size, or without sizes that of the model.
        height: likewise.
        own: pixels a side that the model was trained at.
        latent: of the model; sides are rounded to its granularity where they are not given as a width and height.

    Raises:
        ConfigError: a size cannot be read, or the sizes do not grow, at one aspect, up to the one asked for.
    """
    if asked is None:
        return [(own if width is None else width, own if height is None else height)]
    if is_auto(asked):
        return auto_stages((width or own, height or own), own, latent.granularity)
    given = asked.split(",") if isinstance(asked, str) else list(asked) if isinstance(asked, Sequence) else [asked]
    if not given:
        raise ConfigError("no stage was given; name at least one size, or 'auto'")
    last = read_size(given[-1], (1, 1), 1)
    final = (width or last[0], height or last[1])
    sizes = [read_size(one, final, latent.granularity) for one in given]
    if read_size(given[-1], final, 1) == final:  # one that does not suit the model is refused as such, not rounded
        sizes[-1] = final
    if sizes[-1] != final:
        raise ConfigError(
            f"the last of the stages is {_said(sizes[-1])}, but {_said(final)} is asked for; end the stages with that"
        )
    for small, large in pairwise(sizes):
        if large[0] < small[0] or large[1] < small[1] or large == small:
            raise ConfigError(f"stages must grow, but {_said(large)} comes after {_said(small)}; order them by size")
        _refuse_stretched(small, large, latent.granularity)
    return sizes


def _refuse_stretched(small: Size, large: Size, granularity: int) -> None:
    """Refuse two stages whose aspects differ by more than rounding: the upscaler would distort what is shown."""
    longer = large.index(max(large))
    if abs(small[longer] * large[1 - longer] / large[longer] - small[1 - longer]) > granularity:
        like = read_size(max(small), large, granularity)
        raise ConfigError(
            f"stages must have one aspect, but {_said(large)} comes after {_said(small)}, which it would stretch; "
            f"give {_said(like)} in place of {_said(small)}"
        )


def is_auto(asked: Any) -> bool:
    """Whether stages are left to `auto_stages`."""
    return isinstance(asked, str) and asked.strip().lower() == "auto"


def read_size(text: Any, aspect: Size, granularity: int) -> Size:
    """A width and height from what a user wrote.

    Args:
        text: "1024x768", (1024, 768), or the longer side of a picture, as a number or a string.
        aspect: width and height whose aspect a picture has that is given by one side.
        granularity: pixels that a shorter side is rounded to.

    Raises:
        ConfigError: it is none of these.

    >>> read_size("1024", (4096, 3072), 16), read_size("1024x1024", (4096, 3072), 16)
    ((1024, 768), (1024, 1024))
    """
    parts = text.strip().lower().split("x") if isinstance(text, str) else text
    try:
        numbers = [_whole(part) for part in (parts if isinstance(parts, Sequence) else [parts])]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ConfigError(f"a stage must be a side in pixels, such as 1024, or a size, such as 1024x768; got {text!r}")
    if len(numbers) == 2:
        return numbers[0], numbers[1]
    scale = numbers[0] / max(aspect)
    width, height = (max(granularity, round(side * scale / granularity) * granularity) for side in aspect)
    return (numbers[0], height) if aspect[0] >= aspect[1] else (width, numbers[0])


def auto_stages(size: Size, own: int, granularity: int) -> list[Size]:
    """The model's own size at the aspect of `size`, then twice its sides and so on, up to `size`.

    A stage that is nearly as large as the last one is left out.

    >>> auto_stages((4096, 3072), 1024, 16)
    [(1184, 880), (2368, 1776), (4096, 3072)]
    """
    factor, sizes = own / math.sqrt(size[0] * size[1]), []
    while factor * SMALL_STEP <= 1:
        width, height = (max(granularity, round(side * factor / granularity) * granularity) for side in size)
        sizes.append((width, height))
        factor *= 2
    return [*sizes, size]


def _whole(part: Any) -> int:
    """A whole number, also as a string. Raises ValueError: it is none."""
    if isinstance(part, bool) or not isinstance(part, int | str):
        raise ValueError(part)
    return int(part)


def _said(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
