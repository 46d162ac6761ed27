"""Settings from TOML and back: a key that does not exist is an error with a suggestion."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

from d4k.config.rules import shown
from d4k.errors import ConfigError, did_you_mean
from d4k.files import write_text

__all__ = ["T", "from_mapping", "read_toml", "settings_class", "with_settings", "write_toml"]

T = TypeVar("T")


def from_mapping(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build a settings class from nested mappings.

    Raises:
        ConfigError: a key is unknown, missing, or its value is not allowed; the message names the key in full.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where.rstrip('.')} must be a table, got {shown(data)}")
    hints, values = get_type_hints(cls), {}
    known = {f.name: f for f in attrs.fields(cls)}  # type: ignore[arg-type]
    for key, value in data.items():
        if key not in known:
            raise ConfigError(f"unknown key '{where}{key}'{did_you_mean(key, known)} Known: {', '.join(known)}.")
        section = settings_class(hints[key])
        nested = section is not None and value is not None and not attrs.has(type(value))
        if nested and isinstance(value, Mapping):
            value = {**_parts(known[key].default), **value}
        values[key] = from_mapping(section, value, f"{where}{key}.") if nested else value
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    except TypeError as error:
        absent = [f.name for f in attrs.fields(cls) if f.default is attrs.NOTHING and f.name not in values]  # type: ignore[arg-type]
        raise ConfigError(f"missing key '{where}{absent[0]}'" if absent else str(error)) from error


def settings_class(hint: Any) -> Any:
    """The settings class that a field's type names, alone or beside None; None if it names none."""
    beside = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    return next((choice for choice in (hint, *beside) if attrs.has(choice)), None)


def _parts(default: Any) -> dict[str, Any]:
    """The fields of a default that is a settings class itself: what a table that sets some of them leaves as it is."""
    return {f.name: getattr(default, f.name) for f in attrs.fields(type(default))} if attrs.has(type(default)) else {}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        text = content.decode("utf-8-sig")  # some editors begin a file with a byte-order mark
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path} is not valid TOML: line {line} is not UTF-8; save the file as UTF-8") from error
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: its tables or lists are nested too deeply") from error
    except ValueError as error:  # beside what is not TOML, numbers of more digits than Python reads
        raise ConfigError(f"{path} is not valid TOML: {error}{_line_of(text, error)}") from error


def _line_of(text: str, error: ValueError) -> str:
    """Where the error says nothing of it, the line of the longest number."""
    if isinstance(error, tomllib.TOMLDecodeError):
        return ""
    longest = max(re.finditer(r"[\d_]+", text), key=lambda found: len(found[0]))
    return f" (at line {text.count(chr(10), 0, longest.start()) + 1})"


def with_settings(data: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """Apply `key=value` settings to nested tables; values are TOML, or else plain strings.

    >>> with_settings({"training": {"steps": 5}}, ["training.steps=10", "loss.name=mse"])
    {'training': {'steps': 10}, 'loss': {'name': 'mse'}}
    """
    result = {k: dict(v) if isinstance(v, Mapping) else v for k, v in data.items()}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"cannot read the setting '{setting}'; write it as key=value, e.g. training.steps=100")
        inner = result
        *sections, last = key.strip().split(".")
        for section in sections:
            below = inner.get(section, {})
            if not isinstance(below, Mapping):
                raise ConfigError(f"cannot set '{key.strip()}': '{section}' is a value, not a table")
            inner[section] = inner = dict(below)
        inner[last] = _value(value.strip())
    return result


def write_toml(config: Any, path: Path) -> None:
    """Write a settings class as TOML; None, which TOML lacks, is left out."""
    import tomli_w

    write_text(path, tomli_w.dumps(_without_none(attrs.asdict(config))))


def _value(text: str) -> Any:
    try:
        tables = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the value {shown(text)}: {error}") from error
    return tables["value"] if len(tables) == 1 else text  # a line break is no second setting


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value
