"""The filters of a build, and the keys under which their figures are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from d4k.errors import ConfigError
from d4k.plugins import registry
from d4k.plugins.registry import build
from d4k.protocols import Filter

__all__ = ["Chosen", "choose", "figures_key", "options_of"]


@frozen
class Chosen:
    """A filter of a build.

    Args:
        name: as `d4k plugins` lists it.
        filter: with its options.
        key: of the figures that it measures, see `figures_key`.
    """

    name: str
    filter: Filter
    key: str


def choose(name: str, options: Mapping[str, Any]) -> Chosen:
    """Make a filter from its name and options.

    Raises:
        UnknownNameError: nobody registered the name.
        ConfigError: an option is unknown or out of range.
        PluginError: the plugin cannot be loaded.
    """
    entry = registry().get("filter", name)
    made: Filter = build(entry, dict(options))
    origin = {"filter": name, "plugin": entry.plugin, "version": entry.version, "target": entry.target}
    return Chosen(name, made, figures_key({**origin, "options": _measured_by(made)}))


def figures_key(values: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that stand for everything that figures depend on, beside the picture.

    Raises:
        ConfigError: a value is not plain.
    """
    try:
        said = json.dumps(values, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{values} cannot be kept with figures: {error}; options of filters are plain values"
        ) from error
    return hashlib.sha256(said.encode()).hexdigest()[:12]


def options_of(made: Filter) -> dict[str, Any]:
    """All options of a filter, with the values in force."""
    cls: Any = type(made)
    return {f.alias: getattr(made, f.name) for f in attrs.fields(cls) if f.init}


def _measured_by(made: Filter) -> dict[str, Any]:
    """The options that are no limits: figures depend on them."""
    limits = {limit.option for limit in made.limits}
    return {name: value for name, value in options_of(made).items() if name not in limits}
