"""What a picture is sampled with, where the user does not say, and which sizes a backbone can do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from d4k.errors import ConfigError
from d4k.plugins import registry
from d4k.protocols import Backbone, LatentSpec

__all__ = ["check_size", "choose_settings", "deviations"]


def check_size(backbone: Backbone, width: int, height: int, *, name: str = "this model") -> None:
    """Refuse a size that the backbone cannot draw, before anything is computed.

    Args:
        backbone: loaded.
        width: pixels.
        height: pixels.
        name: what the message calls the backbone.

    Raises:
        ConfigError: width or height exceeds what the backbone's positions cover, or is not a multiple of the
            granularity; the message names the nearest sizes that are allowed.
    """
    spec = backbone.latent
    unit = spec.granularity
    for side, value in (("width", width), ("height", height)):
        if spec.max_size is not None and value > spec.max_size:
            raise ConfigError(_beyond(spec, name, f"{side} {value}", value))
        if value < unit or value % unit:
            near = {max(unit, value // unit * unit), max(unit, -(-value // unit) * unit)}
            allowed = sorted(size for size in near if spec.max_size is None or size <= spec.max_size)
            raise ConfigError(f"{side} {value} is not a multiple of {unit}; nearest: {' or '.join(map(str, allowed))}")


def _beyond(spec: LatentSpec, name: str, asked: str, value: int) -> str:
    """Why a side is too long for the positions of a backbone, and what covers it."""
    own = spec.max_size or 0
    limits = {stride: own * stride // spec.downscale for stride in sorted(spec.downscales)}
    known = [f"{limit} pixels with F{stride}" for stride, limit in reversed(limits.items())] or [f"{own} pixels"]
    larger = [f"the backbone option downscale={stride}" for stride, limit in limits.items() if limit >= value][:1]
    ways = [*larger, f"at most {own} pixels", "the backbone option positions='interpolate'"]
    now = f" with F{spec.downscale}" if limits else ""
    return f"{name} covers at most {', '.join(known)}; asked for {asked}{now}. Choose {', or '.join(ways)}"


def choose_settings(
    backbone: Backbone, name: str, given: Mapping[str, Any], known: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Size, steps, guidance and shift of a picture.

    Args:
        backbone: loaded.
        name: as it is registered.
        given: `width`, `height`, `steps`, `guidance` and `shift`; None is decided here.
        known: what is known of the model; the first that has a value counts, and after all of them the preset.

    Raises:
        ConfigError: the size does not suit the backbone, or nothing says a value.
    """
    width, height = (backbone.defaults.size if given[side] is None else given[side] for side in ("width", "height"))
    check_size(backbone, width, height, name=name)
    preset = registry().preset(name, width, height, backbone.latent.downscale)
    sources = [given, *known, {} if preset is None else attrs.asdict(preset)]
    chosen = {"width": width, "height": height}
    for key in ("steps", "guidance", "shift"):
        chosen[key] = next((source[key] for source in sources if source.get(key) is not None), None)
        if chosen[key] is None and key != "shift":  # that one, the scheduler decides
            raise ConfigError(f"backbone '{name}' has no preset for {key}: give {key}")
    if not 0 <= chosen["guidance"] < math.inf:
        raise ConfigError(f"guidance must be a number of at least 0, got {chosen['guidance']}")
    if chosen["shift"] is not None and not 0 < chosen["shift"] < math.inf:
        raise ConfigError(f"shift must be a number above 0, got {chosen['shift']}; 1 changes nothing")
    return chosen


def deviations(backbone: Backbone, training: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """What a picture would be drawn with otherwise than `training` says, in words."""
    used = {**settings, "downscale": backbone.latent.downscale}
    for name, trained in training.items():
        now = used[name] if name in used else getattr(backbone, name, None)
        if now != trained:
            yield f"{name} {now}, trained {trained}"
