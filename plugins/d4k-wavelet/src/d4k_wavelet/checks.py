"""What the options of the losses may be, as attrs validators that say what is allowed."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any, get_args

import pywt
from attrs import Attribute

__all__ = ["is_count", "is_discrete", "is_positive", "one_of"]


def one_of(choices: Any) -> Any:
    """One of the values of a Literal."""
    allowed = get_args(choices)

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if value not in allowed:
            raise ValueError(f"{attribute.name} must be one of {', '.join(map(str, allowed))}, got {value!r}")

    return check


def is_discrete(_: object, attribute: Attribute[Any], value: object) -> None:
    """A discrete wavelet of PyWavelets."""
    known = pywt.wavelist(kind="discrete")
    if value not in known:
        close = get_close_matches(str(value), known, n=1)
        raise ValueError(
            f"{attribute.name} must be a discrete wavelet of PyWavelets, such as haar, db4 or bior4.4, got {value!r}"
            + (f"; did you mean '{close[0]}'?" if close else "; pywt.wavelist(kind='discrete') lists them")
        )


def is_count(_: object, attribute: Attribute[Any], value: object) -> None:
    """A whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{attribute.name} must be a whole number of at least 1, got {value!r}")


def is_positive(_: object, attribute: Attribute[Any], value: Any) -> None:
    """A number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{attribute.name} must be a number above 0, got {value!r}")
