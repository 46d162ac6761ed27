"""What a picture is sampled with: settled once, checked once, and kept in its recipe."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen

from d4k.config import number, text_or_empty, whole
from d4k.errors import ConfigError, did_you_mean
from d4k.models import Model, Training, first_said, refuse_too_large
from d4k.plugins import registry
from d4k.protocols import Backbone, LatentSpec

__all__ = ["SCHEDULER", "SamplingSettings", "check_size", "choose_settings", "deviations", "is_other_size"]

SCHEDULER = "scheduler"
"""In place of a shift: that of the model's own scheduler."""

OTHER_SIZE = 1.5
"""A picture of so many times more or fewer pixels than those trained is sampled at another size."""


def _check_shift(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value == SCHEDULER:
        return
    try:
        number(0, above=True)(owner, attribute, value)
    except ConfigError as error:
        raise ConfigError(
            f"{error}, or 'scheduler' for that of the model's own scheduler; 1 changes nothing"
        ) from error


@frozen
class SamplingSettings:
    """What one picture is sampled with, beside its prompt and seed.

    Args:
        width: pixels.
        height: pixels.
        steps: steps of the scheduler.
        guidance: scale of the guidance; 0 or more.
        shift: moves noise levels towards 1, above 0; "scheduler" is the shift of the model's own scheduler.
        negative_prompt: what classifier-free guidance steers away from.
    """

    width: int = field(validator=whole(1))
    height: int = field(validator=whole(1))
    steps: int = field(validator=whole(1))
    guidance: float = field(validator=number(0))
    shift: float | Literal["scheduler"] = field(default=SCHEDULER, validator=_check_shift)
    negative_prompt: str = field(default="", validator=text_or_empty())

    @property
    def scheduler_shift(self) -> float | None:
        """The shift as `Backbone.scheduler` takes it: None is that of the model's own scheduler."""
        return None if self.shift == SCHEDULER else float(self.shift)


def choose_settings(backbone: Backbone, model: Model, given: Mapping[str, Any]) -> SamplingSettings:
    """Settle what a picture is sampled with, by the precedence of `d4k.models.reference`.

    Args:
        backbone: loaded.
        model: what is known of it.
        given: fields of `SamplingSettings`; None is settled here.

    Raises:
        ConfigError: a setting is unknown or out of range, the size does not suit the backbone, or nothing says a value.
    """
    known = [f.name for f in attrs.fields(SamplingSettings)]
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown setting '{name}'{did_you_mean(name, known)} Known: {', '.join(known)}.")
    own = backbone.defaults
    asked = {name: model.options.get(name, getattr(own, name)) for name in ("steps", "guidance")}
    said = first_said(given, asked, model.training.sampling, model.registered)
    size = {side: said.get(side, own.size) for side in ("width", "height")}
    check_size(backbone, **size, name=model.backbone)
    refuse_too_large(backbone, **size)
    preset = registry().preset(model.backbone, **size, downscale=backbone.latent.downscale)
    usual = {} if preset is None else {"steps": preset.steps, "guidance": preset.guidance, "shift": preset.shift}
    chosen = first_said(said, size, usual)
    for name in ("steps", "guidance"):
        if name not in chosen:
            raise ConfigError(f"backbone '{model.backbone}' has no preset for {name}: give {name}")
    settings = SamplingSettings(**chosen)
    if odd := "; ".join(deviations(backbone, model.training, settings)):
        warnings.warn(
            f"'{model.ref.name}' samples otherwise than it was trained: {odd}. Leave these out to sample as trained",
            stacklevel=2,
        )
    return settings


def deviations(backbone: Backbone, training: Training, settings: SamplingSettings) -> Iterator[str]:
    """What a picture would be sampled with otherwise than `training` says, in words.

    Another shape of about as many pixels is no other size.
    """
    now = {**backbone.trained_options, "guidance": settings.guidance, "shift": settings.shift}
    trained = {**training.options, **training.sampling}
    for name, value in now.items():
        if trained.get(name, value) != value:
            yield f"{name} {value}, trained {trained[name]}"
    seen = (training.width or settings.width, training.height or settings.height)
    if is_other_size((settings.width, settings.height), seen):
        yield f"size {settings.width}x{settings.height}, trained {seen[0]}x{seen[1]}"


def is_other_size(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes differ in more than their shape, and by how much is worth a word.

    Args:
        one: width and height in pixels.
        other: likewise.

    >>> is_other_size((1024, 1024), (1280, 768)), is_other_size((1024, 1024), (2048, 2048))
    (False, True)
    """
    ratio = one[0] * one[1] / (other[0] * other[1])
    return max(ratio, 1 / ratio) > OTHER_SIZE


def check_size(backbone: Backbone, width: int, height: int, *, name: str = "this model") -> None:
    """Refuse a size that the backbone cannot generate, before anything is computed.

    Args:
        backbone: loaded.
        width: pixels.
        height: pixels.
        name: what the message calls the backbone.

    Raises:
        ConfigError: a side is no whole number, exceeds what the backbone's positions cover, or is not a multiple of the
            granularity; the message names the nearest sizes that are allowed.
    """
    spec = backbone.latent
    unit = spec.granularity
    for side, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{side} must be a whole number of pixels, got {value!r}")
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
    ways = [*larger, f"at most {own} pixels", *([spec.beyond] if spec.beyond else [])]
    now = f" with F{spec.downscale}" if limits else ""
    return f"{name} covers at most {', '.join(known)}; asked for {asked}{now}. Choose {', or '.join(ways)}"
