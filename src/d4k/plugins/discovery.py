"""Discovery: entry points of the group `d4k`, and the built-ins, through one door."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from attrs import evolve

from d4k.errors import PluginError
from d4k.plugins import hookspecs
from d4k.plugins.hookspecs import API_VERSION, Register, hookimpl
from d4k.plugins.registry import Entry, Kind, Registry, build
from d4k.protocols import Preset

__all__ = ["create", "discover", "registry"]

HOOKS: dict[str, Kind] = {
    "register_backbones": "backbone",
    "register_losses": "loss",
    "register_datasets": "dataset",
    "register_metrics": "metric",
    "register_upscalers": "upscaler",
    "register_filters": "filter",
    "register_captioners": "captioner",
}


class Builtins:
    """What the core itself registers."""

    @staticmethod
    @hookimpl
    def register_losses(register: Register) -> None:
        """The plain objective."""
        register("mse", "d4k.training:MSELoss", summary="mean squared error of the velocity (rectified flow)")

    @staticmethod
    @hookimpl
    def register_datasets(register: Register) -> None:
        """The plain folder."""
        register("folder", "d4k.datasets:FolderDataset", summary="pictures with .txt captions beside them")

    @staticmethod
    @hookimpl
    def register_upscalers(register: Register) -> None:
        """The classical filters."""
        register("lanczos", "d4k.images:Lanczos", summary="Lanczos filter of three lobes, antialiased, on 8-bit pixels")
        register("bicubic", "d4k.images:Bicubic", summary="bicubic filter, softer than Lanczos, on 8-bit pixels")

    @staticmethod
    @hookimpl
    def register_filters(register: Register) -> None:
        """What `d4k data build` looks at by default."""
        for name, target, summary in (
            ("size", "SizeFilter", "pixels on the short side, and aspect"),
            ("detail", "DetailFilter", "share of flat areas, entropy of the greys, energy of the finest subbands"),
            ("noise", "NoiseFilter", "standard deviation of the noise"),
            ("blur", "BlurFilter", "blur of the sharpest parts"),
            ("jpeg", "JpegFilter", "JPEG quality by the file, and blocking by the pixels"),
            ("upscaled", "UpscaledFilter", "pictures that were enlarged, by the frequency at which their detail ends"),
            ("border", "BorderFilter", "frames, letterboxes and areas of one colour"),
        ):
            register(name, f"d4k.datasets.filters:{target}", summary=summary)


@cache
def registry() -> Registry:
    """The registry of this process, discovered on first call.

    `D4K_PLUGINS=a,b` in the environment restricts discovery to those entry points; empty means built-ins only.
    """
    wanted = os.environ.get("D4K_PLUGINS")
    names = None if wanted is None else {name.strip() for name in wanted.split(",") if name.strip()}
    found = [ep for ep in entry_points(group="d4k") if names is None or ep.name in names]
    result = discover(found)
    if names is not None:
        for name in names - {ep.name for ep in found}:
            result.failures[name] = "named in D4K_PLUGINS, but not installed"
    return result


def discover(found: list[EntryPoint]) -> Registry:
    """Register the built-ins and the given entry points. A plugin that fails is recorded, never raised."""
    result = Registry()
    _collect(result, Builtins, "d4k", _version("d4k"))
    for point in sorted(found, key=lambda ep: ep.name):
        dist = point.dist
        name, version = (dist.name, dist.version) if dist else (point.name, "?")
        trial = Registry()
        try:
            module = point.load()
            api = getattr(module, "D4K_API", API_VERSION)
            if api != API_VERSION:
                raise PluginError(f"it is written for API {api}, this d4k has API {API_VERSION}")
            _collect(trial, module, name, version)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin that calls sys.exit has failed like any other
            kind = "" if isinstance(error, PluginError) else f"{type(error).__name__}: "
            result.failures[name] = f"{kind}{' '.join(str(error).split())}"
            continue
        for entries in trial.entries.values():
            for entry in entries:
                result.add(entry)
    return result


def create(kind: Kind, name: str, **options: Any) -> Any:
    """Make a registered component.

    Args:
        kind: "backbone", "loss", "dataset", "metric", "upscaler", "filter" or "captioner".
        name: as `d4k plugins` lists it.
        options: the component's own options.

    Raises:
        UnknownNameError: no such kind or name.
        ConfigError: an option is unknown or out of range.
        PluginError: the plugin cannot be loaded.

    >>> create("loss", "mse")
    MSELoss()
    """
    return build(registry().get(kind, name), options)


def _collect(into: Registry, plugin: Any, name: str, version: str) -> None:
    manager = pluggy.PluginManager("d4k")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin, name)
    manager.check_pending()
    for hook, kind in HOOKS.items():
        getattr(manager.hook, hook)(register=_register(into, kind, name, version))

    def register_checkpoint(
        short: str,
        *,
        backbone: str,
        source: str,
        summary: str,
        options: Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
        configs: str = "",
    ) -> None:
        _check_words("checkpoint", name=short, backbone=backbone, source=source, summary=summary)
        entry = Entry("checkpoint", short, source, summary, name, version, backbone)
        into.add(evolve(entry, options=options or {}, sampling=sampling or {}, configs=configs))

    manager.hook.register_checkpoints(register=register_checkpoint)


def _register(into: Registry, kind: Kind, plugin: str, version: str) -> Callable[..., None]:
    def register(
        name: str,
        target: str,
        *,
        summary: str,
        pipelines: tuple[str, ...] = (),
        presets: tuple[Preset, ...] = (),
    ) -> None:
        _check_words(kind, name=name, target=target, summary=summary)
        module, _, attribute = target.partition(":")
        if not (module and attribute):
            raise PluginError(f"{kind} '{name}' has the target '{target}'; it must be \"module:attribute\"")
        into.add(Entry(kind, name, target, summary, plugin, version, pipelines=pipelines, presets=presets))

    return register


def _check_words(kind: Kind, **given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, str):
            raise PluginError(f"a {kind} is registered with {name}={value!r}; it must be a string")


def _version(distribution: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "?"
