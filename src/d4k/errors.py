"""Every error d4k raises on purpose. The command line prints these as one line and exits with code 2.

D4KError
├── ConfigError           a setting, an option or a key is unknown or out of range
│   └── UnknownNameError  a name that nobody registered
├── PluginError           a plugin is broken, or two of them claim one name
├── DataError             a picture, a caption or a dataset cannot be used
├── CheckpointError       a model or a run cannot be loaded
└── OutputError           a result cannot be written
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckpointError",
    "ConfigError",
    "D4KError",
    "DataError",
    "OutputError",
    "PluginError",
    "UnknownNameError",
]


class D4KError(Exception):
    """Root of d4k's errors: the message says what was wrong, what is allowed and what to do."""


class ConfigError(D4KError, ValueError):
    """A setting, an option or a key is unknown or out of range."""


class UnknownNameError(ConfigError, LookupError):
    """A name that nobody registered.

    Attributes:
        kind: what was looked for, such as `"loss"`.
        name: the name as given.
        known: the names that exist, sorted.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        close = did_you_mean(name, self.known)
        listed = ", ".join(self.known) or "none"
        super().__init__(f"unknown {kind} '{name}'{close} Known: {listed}.{' ' + hint if hint else ''}")


class PluginError(D4KError):
    """A plugin is broken, or two of them claim one name.

    Attributes:
        plugins: the distributions concerned.
    """

    def __init__(self, message: str, plugins: Iterable[str] = ()) -> None:
        self.plugins = tuple(plugins)
        super().__init__(message)


class DataError(D4KError, ValueError):
    """A picture, a caption or a dataset cannot be used.

    Attributes:
        path: the file concerned, if there is one.
        line: the line of `path` concerned, counted from 1, if there is one.
    """

    def __init__(self, message: str, path: object = None, line: int | None = None) -> None:
        self.path, self.line = path, line
        super().__init__(message)


class CheckpointError(D4KError):
    """A model or a run cannot be loaded."""


class OutputError(D4KError, OSError):
    """A result cannot be written."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `word`: `"; did you mean 'x'?"`, or `"."` when no known word is close.

    >>> did_you_mean("wavelt", ["mse", "wavelet"])
    "; did you mean 'wavelet'?"
    """
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else "."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, ending in a full stop; empty where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else ""
