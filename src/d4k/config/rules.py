"""Validators of settings: each says in words what is allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from d4k.errors import ConfigError

__all__ = [
    "Validator",
    "flag",
    "names",
    "number",
    "one_of",
    "optional",
    "table",
    "text",
    "text_or_empty",
    "whole",
]

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def whole(minimum: int, maximum: int | None = None) -> Validator:
    """A whole number of at least `minimum`, and at most `maximum`."""
    ends = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return _rule(
        lambda value: (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value >= minimum
            and (maximum is None or value <= maximum)
        ),
        f"a whole number {ends}",
    )


def number(
    minimum: float = -math.inf, maximum: float = math.inf, *, above: bool = False, below: bool = False
) -> Validator:
    """A finite number from `minimum` to `maximum`; with `above` or `below`, without that end."""
    ends = []
    if minimum > -math.inf:
        ends.append(f"{'above' if above else 'of at least'} {minimum:g}")
    if maximum < math.inf:
        ends.append(f"{'below' if below else 'at most'} {maximum:g}")

    def allowed(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
            return False
        return (value > minimum if above else value >= minimum) and (value < maximum if below else value <= maximum)

    return _rule(allowed, f"a number {' and '.join(ends)}" if ends else "a finite number")


def one_of(*choices: str | int) -> Validator:
    """One of some words or numbers."""

    def allowed(value: Any) -> bool:
        return any(isinstance(value, type(choice)) and value == choice for choice in choices)

    return _rule(allowed, f"one of {', '.join(map(str, choices))}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def text() -> Validator:
    """A string that is not empty."""
    return _rule(lambda value: isinstance(value, str) and bool(value), "a string that is not empty")


def text_or_empty() -> Validator:
    """A string."""
    return _rule(lambda value: isinstance(value, str), "a string")


def flag() -> Validator:
    """True or false."""
    return _rule(lambda value: isinstance(value, bool), "true or false")


def table() -> Validator:
    """A table of options."""
    return _rule(lambda value: isinstance(value, Mapping), "a table of options")


def names() -> Validator:
    """Words, one or more."""
    return _rule(
        lambda value: isinstance(value, tuple) and bool(value) and all(isinstance(n, str) and n for n in value),
        "a list of words, not empty",
    )


def optional(rule: Validator) -> Validator:
    """None, or what `rule` allows."""

    def check(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            rule(owner, attribute, value)

    return check


def _rule(allowed: Callable[[Any], bool], words: str) -> Validator:
    def check(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
        if not allowed(value):
            raise ConfigError(f"{attribute.name} must be {words}, got {_shown(value)}")

    return check


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of too many digits"
