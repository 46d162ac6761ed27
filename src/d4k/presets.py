"""What to draw with, where the user does not say; and what is drawn otherwise than it was trained."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from d4k.errors import ConfigError
from d4k.plugins import registry
from d4k.protocols import Backbone
from d4k.sampling import check_size

__all__ = ["choose_settings", "deviations"]


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
