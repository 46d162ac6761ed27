"""What a picture is sampled with: one frozen value, settled once, checked once, and kept in its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from d4k.config import from_mapping, number, shown, table, text, text_or_empty
from d4k.errors import ConfigError
from d4k.sampling.stages import Stage
from d4k.values import UPSCALER

__all__ = ["SamplingSettings", "settings_from", "settings_record"]

CUTOFF = 0.4
"""For twice the side: see `docs/mathematics.md`, "Low-frequency guidance between stages"."""


def _are_stages(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if not isinstance(value, tuple) or not all(type(one) is Stage for one in value):
        raise ConfigError(f"{attribute.name} must be a tuple of stages, got {shown(value)}")


def _paths_as_text(options: Any) -> Any:
    """A table of options, with paths as the strings that a recipe can hold."""
    if not isinstance(options, Mapping):
        return options
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}


def _are_plain(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    """Refuse options that a recipe could not hold before they have cost a picture."""
    table()(owner, attribute, value)
    try:
        json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{attribute.name} cannot be kept in a recipe: {error}; give numbers and strings") from error


@frozen
class SamplingSettings(Stage):
    """What one picture is sampled with, beside its prompt and seed: its own stage, those before it, and how they join.

    Args:
        width: pixels.
        height: pixels.
        steps: steps of the scheduler, of which a stage that begins below noise takes the last part.
        guidance: scale of the guidance; 0 or more.
        shift: moves noise levels towards 1, above 0; "scheduler" is the shift of the model's own scheduler.
        restart: noise level in (0, 1] that this size begins at, from the picture of the stage before or from one that
            is given; 1 is noise alone.
        negative_prompt: what classifier-free guidance steers away from.
        alignment: strength in [0, 1] of the low-frequency guidance that holds a stage to the picture it began with; see
            `d4k.sampling.alignment`. 0 is off.
        cutoff: which frequencies count as low there, as a share of the Nyquist frequency of the latent, in [0, 1].
        upscaler: registered name of what enlarges a picture between stages.
        upscaler_options: of the upscaler.
        earlier: the stages before this size, smallest first.
    """

    negative_prompt: str = field(default="", validator=text_or_empty())
    alignment: float = field(default=0.0, validator=number(0, 1))
    cutoff: float = field(default=CUTOFF, validator=number(0, 1))
    upscaler: str = field(default=UPSCALER, validator=text())
    upscaler_options: Mapping[str, Any] = field(factory=dict, converter=_paths_as_text, validator=_are_plain)
    earlier: tuple[Stage, ...] = field(default=(), validator=_are_stages)

    @property
    def stages(self) -> tuple[SamplingSettings, ...]:
        """All sizes that the picture passes through, the last of which is its own; each without any before it."""
        before = [attrs.evolve(self, **attrs.asdict(stage), earlier=()) for stage in self.earlier]
        return (*before, attrs.evolve(self, earlier=()))


PLAIN = ("width", "height", "steps", "guidance", "shift", "negative_prompt")
"""What every recipe holds; the rest is kept where it differs from its default."""


def settings_record(settings: SamplingSettings) -> dict[str, Any]:
    """What a recipe keeps of the settings, as plain values."""
    defaults = {f.name: f.default for f in attrs.fields(SamplingSettings)} | {"upscaler_options": {}}
    values = attrs.asdict(settings)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name in PLAIN or getattr(settings, name) != defaults[name]
    }


def settings_from(recipe: Mapping[str, Any]) -> SamplingSettings:
    """The settings that a recipe holds, as `settings_record` made it.

    Raises:
        ConfigError: a value is not allowed.
    """
    known = {f.name: recipe[f.name] for f in attrs.fields(SamplingSettings) if f.name in recipe}
    earlier = known.pop("earlier", ())
    if not isinstance(earlier, Sequence) or isinstance(earlier, str):
        raise ConfigError(f"earlier must be a list of stages, got {shown(earlier)}")
    stages = (from_mapping(Stage, stage, f"earlier.{place}.") for place, stage in enumerate(earlier, 1))
    return SamplingSettings(**known, earlier=tuple(stages))
