"""Options of the wrong type: which one it was, and what is allowed, whatever the validator said."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

__all__ = ["explain", "wrong_type"]

PLAIN = (bool, int, float, str, types.NoneType)


def wrong_type(cls: type, options: Mapping[str, Any]) -> str:
    """A sentence for the first option that is not of the plain type that its field is annotated with.

    Only fields without a validator and a converter are looked at: the others say themselves what they take.

    Args:
        cls: an attrs class.
        options: as given, by the name of the argument.

    Returns:
        What is wrong, or an empty string.
    """
    hints = _hints(cls)
    for field in attrs.fields(cls):
        if field.alias in options and field.validator is None and field.converter is None:
            value = options[field.alias]
            if not _suits(value, hints.get(field.name, Any)):
                return f"option '{field.alias}' must be {_allowed(field)}, got {value!r}"
    return ""


def explain(cls: type, options: Mapping[str, Any], error: Exception) -> str:
    """Why an attrs class refused its options: the option's name, what it may be, and what the validator said.

    Args:
        cls: an attrs class, or any other callable.
        options: as given.
        error: what making it raised.
    """
    reason = str(error.args[0] if error.args else error).replace(f"{cls.__name__}.__init__() ", "")
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", reason)
    if any(re.search(rf"\b{re.escape(name)}\b", reason) for name in options):
        return reason
    for field in attrs.fields(cls) if attrs.has(cls) else ():
        if field.alias in options and (
            _fails(field.converter, field, options) or _fails(field.validator, field, options)
        ):
            return f"option '{field.alias}' must be {_allowed(field)}, got {options[field.alias]!r} ({reason})"
    return reason


def _fails(check: Callable[..., Any] | None, field: Any, options: Mapping[str, Any]) -> bool:
    """Whether a converter or a validator of a field refuses its option when it is asked alone."""
    if check is None:
        return False
    value = options[field.alias]
    try:
        if check is field.converter:
            check(value)
        else:
            check(None, field, value)
    except (TypeError, ValueError):
        return True
    except Exception:
        return False  # it looks at other fields, which are not there
    return False


def _allowed(field: Any) -> str:
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
    return kind.replace(" | ", " or ").replace("None", "none")


def _hints(cls: type) -> dict[str, Any]:
    try:
        return get_type_hints(cls)
    except Exception:
        return {}  # of names that are imported for type checkers only


def _suits(value: Any, hint: Any) -> bool:
    """Whether a value is of a plain type; any value suits a type that is not plain."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_suits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint not in PLAIN:
        return True
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)
