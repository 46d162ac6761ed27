"""Validators of settings: each says in words what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from d4k.errors import ConfigError

__all__ = [
    "Validator",
    "as_tuple",
    "flag",
    "named_or_class",
    "names",
    "names_or_none",
    "number",
    "number_or",
    "numbers",
    "one_of",
    "optional",
    "shown",
    "table",
    "text",
    "text_or_empty",
    "whole",
    "word_or_sizes",
]

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

LARGEST_WHOLE = 2**63 - 1
CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
SIZE = re.compile(r"[1-9]\d{0,8}x[1-9]\d{0,8}")
LARGEST, SMALLEST = 3.4028234663852886e38, 1.1754943508222875e-38
"""The largest and the smallest number above 0 that float32, in which is computed, holds in full precision."""


def whole(minimum: int, maximum: int | None = None) -> Validator:
    """A whole number of at least `minimum`, and at most `maximum` or what 63 bits hold."""
    ends = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    most = LARGEST_WHOLE if maximum is None else maximum
    return _rule(
        lambda value: _is_whole(value) and minimum <= value <= most,
        f"a whole number {ends}",
        lambda value: " and below 2**63" if maximum is None and _is_whole(value) and value > LARGEST_WHOLE else "",
    )


def number(
    minimum: float = -math.inf, maximum: float = math.inf, *, above: bool = False, below: bool = False
) -> Validator:
    """A finite number from `minimum` to `maximum` that float32 holds; with `above` or `below`, without that end."""
    ends = []
    if minimum > -math.inf:
        ends.append(f"{'above' if above else 'of at least'} {minimum:g}")
    if maximum < math.inf:
        ends.append(f"{'below' if below else 'at most'} {maximum:g}")

    def allowed(value: Any) -> bool:
        if not _is_number(value) or not fits(value) or not math.isfinite(value):
            return False
        return bool(
            (value > minimum if above else value >= minimum) and (value < maximum if below else value <= maximum)
        )

    def why(value: Any) -> str:
        return "" if not _is_number(value) or fits(value) else " that float32 holds (1.2e-38 to 3.4e+38)"

    return _rule(allowed, f"a number {' and '.join(ends)}" if ends else "a finite number", why)


def one_of(*choices: str | int) -> Validator:
    """One of some words or numbers."""

    def allowed(value: Any) -> bool:
        return any(isinstance(value, type(choice)) and value == choice for choice in choices)

    return _rule(allowed, f"one of {', '.join(map(str, choices))}")


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
    """A table of options, its numbers such as float32 holds."""
    check = _rule(lambda value: isinstance(value, Mapping), "a table of options")

    def check_numbers(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        check(owner, attribute, value)
        for key, inner in value.items():
            if not all(fits(found) for found in _numbers(inner)):
                raise ConfigError(
                    f"{attribute.name}.{key} must be a number that float32 holds (1.2e-38 to 3.4e+38), "
                    f"got {shown(inner)}"
                )

    return check_numbers


def names() -> Validator:
    """Words, one or more."""
    return _rule(
        lambda value: isinstance(value, tuple) and bool(value) and all(isinstance(n, str) and n for n in value),
        "a list of words, not empty",
    )


def names_or_none() -> Validator:
    """Words, or no word at all."""
    return _rule(
        lambda value: isinstance(value, tuple) and all(isinstance(n, str) and n for n in value), "a list of words"
    )


def numbers(minimum: float, maximum: float) -> Validator:
    """Numbers, one or more, each from `minimum` to `maximum`."""
    return _rule(
        lambda value: (
            isinstance(value, tuple)
            and bool(value)
            and all(_is_number(n) and minimum <= n <= maximum and fits(n) for n in value)
        ),
        f"a list of numbers from {minimum:g} to {maximum:g}, not empty",
    )


def number_or(word: str, rule: Validator) -> Validator:
    """One word, or what `rule` allows."""

    def check(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value == word:
            return
        try:
            rule(owner, attribute, value)
        except ConfigError as error:
            raise ConfigError(f"{error}; '{word}' is allowed too") from error

    return check


def named_or_class(*choices: str) -> Validator:
    """One of some words, or a class as `module:Class`."""
    return _rule(
        lambda value: isinstance(value, str) and (value in choices or bool(CLASS.fullmatch(value))),
        f"one of {', '.join(choices)}, or a class as module:Class",
    )


def word_or_sizes(*words: str) -> Validator:
    """One of some words, or sizes in pixels as a list of `"WIDTHxHEIGHT"`."""
    return _rule(
        lambda value: (
            value in words
            if isinstance(value, str)
            else isinstance(value, tuple)
            and bool(value)
            and all(isinstance(n, str) and SIZE.fullmatch(n) for n in value)
        ),
        f"one of {', '.join(words)}, or a list of sizes such as 3072x4096",
    )


def as_tuple(value: Any) -> Any:
    """A list as a tuple, and anything else as it is: TOML has lists, and settings do not change."""
    return tuple(value) if isinstance(value, list) else value


def optional(rule: Validator) -> Validator:
    """None, or what `rule` allows."""

    def check(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            rule(owner, attribute, value)

    return check


def fits(value: float) -> bool:
    """Whether float32 holds a number: 0, one that is not finite, or one from 1.2e-38 to 3.4e38 but for its sign."""
    if isinstance(value, float) and not math.isfinite(value):
        return True
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


def shown(value: Any) -> str:
    """A value as a message shows it: cut where it is long.

    >>> shown("a"), shown(10**5000), shown("a" * 1000)[:5]
    ("'a'", 'a whole number of about 5000 digits', "'aaaa")
    """
    if isinstance(value, int) and value.bit_length() > 512:  # Python refuses to write out some thousand digits
        return f"a whole number of about {int(value.bit_length() * math.log10(2))} digits"
    try:
        words = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too long to show"
    return words if len(words) <= 200 else f"{words[:100]}... ({len(words)} characters)"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(value: Any) -> Iterable[float]:
    """All numbers in nested lists and tables."""
    if _is_number(value):
        yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)


def _rule(allowed: Callable[[Any], bool], words: str, why: Callable[[Any], str] | None = None) -> Validator:
    def check(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
        if not allowed(value):
            more = "" if why is None else why(value)
            raise ConfigError(f"{attribute.name} must be {words}{more}, got {shown(value)}")

    return check
