"""The contract of a filter."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import numpy as np

from d4k.images import Picture
from d4k.protocols import Filter, Limit
from d4k.testing.attempt import attempt, check_options

__all__ = ["check_filter"]


def check_filter(chosen: Filter) -> None:
    """Check a filter.

    Every picture has every figure, the same again, and the pixels stay as they are. Figures do not depend on options
    that set limits. Each limit is of one of the figures, is set by one of the options, and draws a line.

    Args:
        chosen: to check.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(chosen)
    figures = attempt("the figures of a filter", lambda: chosen.figures)
    assert isinstance(figures, Mapping), f"figures is a mapping, got a {type(figures).__name__}"
    assert figures, "a filter has at least one figure"
    for name, what in figures.items():
        assert isinstance(name, str), f"the name of a figure is a string, got {name!r}"
        assert name.isidentifier(), f"the name of a figure has the form of an identifier, got {name!r}"
        assert isinstance(what, str), f"figure '{name}' is explained in words, got {what!r}"
        assert what, f"figure '{name}' is explained in words, and not left empty"
    _check_limits(chosen)
    for width, height in ((96, 64), (33, 70)):
        _check_measure(chosen, width, height)


def _check_limits(chosen: Filter) -> None:
    options = {field.alias for field in attrs.fields(type(chosen)) if field.init}  # type: ignore[arg-type]
    limits = attempt("the limits of a filter", lambda: chosen.limits)
    for limit in limits:
        assert isinstance(limit, Limit), f"limits are d4k.Limit, got a {type(limit).__name__}"
        assert limit.figure in chosen.figures, f"a limit is of a figure; '{limit.figure}' is none"
        assert limit.option in options, f"a limit is set by an option; '{limit.option}' is none"
        assert (limit.least, limit.most) != (None, None), f"the limit of '{limit.figure}' draws a line: least or most"


def _check_measure(chosen: Filter, width: int, height: int) -> None:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 255 // height, columns * 255 // width, (rows * 7 + columns * 3) % 256], -1)
    picture = Picture(pixels.astype(np.uint8))
    kept = picture.pixels.copy()
    what = f"measure of a picture of {width}x{height} pixels without a file"
    found = attempt(what, lambda: dict(chosen.measure(picture)))
    assert set(found) == set(chosen.figures), f"measure gives {sorted(chosen.figures)}, got {sorted(found)}"
    for name, value in found.items():
        assert isinstance(value, (int, float)), f"figure '{name}' is a plain number, got a {type(value).__name__}"
        assert not math.isinf(value), f"figure '{name}' is finite, or NaN where it does not apply"
    again = attempt(f"{what}, again,", lambda: dict(chosen.measure(Picture(kept.copy()))))
    assert str(again) == str(found), "the same picture has the same figures again"
    assert np.array_equal(picture.pixels, kept), "a filter leaves the pixels as they are"
