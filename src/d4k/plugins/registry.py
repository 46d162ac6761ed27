"""Names and what they stand for: kind and name -> "module:attribute", loaded on first use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Literal, get_args

import attrs
from attrs import define, field, frozen

from d4k.errors import ConfigError, D4KError, PluginError, UnknownNameError, did_you_mean
from d4k.plugins.options import explain, wrong_type
from d4k.protocols import Preset

__all__ = ["Entry", "Kind", "Registry", "build"]

Kind = Literal["backbone", "loss", "dataset", "metric", "upscaler", "filter", "captioner", "checkpoint"]


@frozen
class Entry:
    """One registered name.

    Args:
        kind: what it is.
        name: how users call it.
        target: "module:attribute" of an attrs class; for a checkpoint, a folder or a Hub id.
        summary: one line.
        plugin: distribution that registered it.
        version: of that distribution.
        backbone: for a checkpoint, the name of its backbone.
        pipelines: for a backbone, the diffusers pipelines it loads.
        presets: for a backbone, what it samples with, by size.
        options: for a checkpoint, options of its backbone.
        sampling: for a checkpoint, what its authors sample with: width, height, steps, guidance, shift.
        configs: for a checkpoint, a folder with its configuration files, for planning without the Hub.
    """

    kind: Kind
    name: str
    target: str
    summary: str
    plugin: str
    version: str
    backbone: str = ""
    pipelines: tuple[str, ...] = ()
    presets: tuple[Preset, ...] = ()
    options: Mapping[str, Any] = field(factory=dict)
    sampling: Mapping[str, Any] = field(factory=dict)
    configs: str = ""

    def load(self) -> Any:
        """Import the target.

        Raises:
            PluginError: the module or the attribute cannot be had.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(import_module(module), attribute)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a module that calls sys.exit is broken like any other
            raise PluginError(
                f"{self.kind} '{self.name}' of {self.plugin} cannot be loaded from {self.target}: "
                f"{type(error).__name__}: {error}",
                [self.plugin],
            ) from error


@define
class Registry:
    """All names of one process.

    Attributes:
        entries: by kind and name; several entries under one name are a clash, which is an error on use.
        failures: plugin -> why it did not load.
    """

    entries: dict[tuple[str, str], list[Entry]] = field(factory=dict)
    failures: dict[str, str] = field(factory=dict)

    def add(self, entry: Entry) -> None:
        """Register an entry; a second one under the same name is kept and reported on use."""
        self.entries.setdefault((entry.kind, entry.name), []).append(entry)

    def names(self, kind: Kind) -> list[str]:
        """Registered names of a kind, sorted."""
        return sorted(name for k, name in self.entries if k == kind)

    def preset(self, backbone: str, width: int, height: int, downscale: int | None = None) -> Preset | None:
        """The preset of a backbone for an image: of those for `downscale`, or for any, the one nearest in size.

        Sizes are compared on a scale of octaves. Where none is for that downscale, the others count. None where the
        backbone has no preset.
        """
        presets = self.get("backbone", backbone).presets
        side = math.sqrt(width * height)

        def distance(preset: Preset) -> tuple[bool, float, bool]:
            other = preset.downscale not in (None, downscale)
            return other, abs(math.log(preset.size / side)), preset.downscale is None

        return min(presets, key=distance, default=None)

    def clashes(self) -> list[str]:
        """One sentence for every name that more than one plugin claims."""
        return [_clash(entries) for entries in self.entries.values() if len(entries) > 1]

    def get(self, kind: Kind, name: str) -> Entry:
        """The entry under a name.

        Raises:
            UnknownNameError: nobody registered it.
            PluginError: two plugins did, or the plugin of that name failed to load.
        """
        if kind not in get_args(Kind):
            raise UnknownNameError("kind", kind, get_args(Kind))
        entries = self.entries.get((kind, name), [])
        if len(entries) > 1:
            raise PluginError(_clash(entries), [e.plugin for e in entries])
        if entries:
            return entries[0]
        for plugin, reason in self.failures.items():
            if plugin.removeprefix("d4k-").startswith(name) or name.startswith(plugin.removeprefix("d4k-")):
                raise PluginError(
                    f"{kind} '{name}' is not available: plugin {plugin} failed to load: {reason}", [plugin]
                )
        raise UnknownNameError(kind, name, self.names(kind), "Try: d4k plugins")


def _clash(entries: list[Entry]) -> str:
    claims = " and ".join(f"{e.plugin} {e.version}" for e in entries)
    return (
        f"{entries[0].kind} '{entries[0].name}' is claimed by {claims}; uninstall one of them, "
        "or name the plugins to use in D4K_PLUGINS"
    )


def build(entry: Entry, options: dict[str, Any]) -> Any:
    """Make the component an entry stands for.

    Args:
        entry: of any kind but checkpoint.
        options: fields of its attrs class.

    Raises:
        ConfigError: an option is unknown, missing or out of range.
        PluginError: the implementation cannot be imported.
    """
    cls = entry.load()
    label = f"{entry.kind} '{entry.name}'"
    allowed = [f.alias for f in attrs.fields(cls) if f.init] if attrs.has(cls) else None
    if allowed is not None:
        for option in options:
            if option not in allowed:
                known = ", ".join(allowed) or "none"
                raise ConfigError(f"{label} has no option '{option}'{did_you_mean(option, allowed)} Options: {known}.")
        for f in attrs.fields(cls):
            if f.init and f.default is attrs.NOTHING and f.alias not in options:
                raise ConfigError(f"{label} needs the option '{f.alias}', which is not given: name it as {f.alias}=...")
        if wrong := wrong_type(cls, options):
            raise ConfigError(f"{label}: {wrong}")
    try:
        return cls(**options)
    except ConfigError as error:
        raise ConfigError(f"{label}: {error}") from error
    except D4KError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{label}: {explain(cls, options, error)}") from error
