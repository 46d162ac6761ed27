"""Which settings a picture is sampled with: what is given, else what the model says, else the backbone's presets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from d4k.errors import ConfigError, did_you_mean
from d4k.models import Model, Training, first_said, refuse_too_large
from d4k.plugins import registry
from d4k.protocols import Backbone, LatentSpec
from d4k.sampling.settings import SamplingSettings
from d4k.sampling.stages import Size, Stage, stage_sizes
from d4k.values import RESTART

__all__ = ["check_size", "choose_settings", "deviations", "is_other_size"]

OTHER_SIZE = 1.5
"""A picture of so many times more or fewer pixels than those trained is sampled at another size."""

EACH = ("steps", "guidance", "shift", "restart")
"""Settings that stages may have one each of."""


def choose_settings(
    backbone: Backbone, model: Model, given: Mapping[str, Any], *, image: bool = False
) -> SamplingSettings:
    """Settle what a picture is sampled with, by the precedence of `d4k.models.reference`.

    Args:
        backbone: loaded.
        model: what is known of it.
        given: fields of `SamplingSettings`, and `stages`: "auto", or sizes as `d4k.sampling.stages.stage_sizes` reads
            them, the last of which is the size of the picture; None is settled here. With stages, `steps`, `guidance`
            and `shift` may be lists of one for each, and `restart` of one for each but the first.
        image: the first stage begins with a picture, too, and not with noise.

    Raises:
        ConfigError: a setting is unknown or out of range, the size does not suit the backbone, or nothing says a value.
    """
    known = [f.name for f in attrs.fields(SamplingSettings) if f.name != "earlier"] + ["stages"]
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown setting '{name}'{did_you_mean(name, known)} Known: {', '.join(known)}.")
    own = backbone.defaults
    asked = {name: model.options.get(name, getattr(own, name)) for name in ("steps", "guidance")}
    said = first_said(given, asked, model.training.sampling, model.registered)
    sizes = stage_sizes(said.pop("stages", None), said.get("width"), said.get("height"), own.size, backbone.latent)
    each = _for_each(said, len(sizes), image)
    stages = [
        _stage(backbone, model, size, one, later=image or place > 0)
        for place, (size, one) in enumerate(zip(sizes, each, strict=True))
    ]
    rest = {name: value for name, value in said.items() if name not in (*EACH, "width", "height")}
    settings = SamplingSettings(**attrs.asdict(stages[-1]), earlier=tuple(stages[:-1]), **rest)
    if odd := "; ".join(deviations(backbone, model.training, settings)):
        warnings.warn(
            f"'{model.ref.name}' samples otherwise than it was trained: {odd}. Leave these out to sample as trained",
            stacklevel=2,
        )
    return settings


def _for_each(said: Mapping[str, Any], stages: int, image: bool) -> list[dict[str, Any]]:
    """What each stage is told: its part of a list, or what all are told."""
    out: list[dict[str, Any]] = [{} for _ in range(stages)]
    for name in EACH:
        value = said.get(name)
        first = 0 if image or name != "restart" else 1  # stage that the first of a list is for
        if isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) != stages - first:
                raise ConfigError(
                    f"{name} has {len(value)} values for {stages - first} stages; give one for all, or one for each"
                )
            values = list(value)
        else:
            values = [value] * (stages - first)
        for one, part in zip(out[first:], values, strict=True):
            one[name] = part
    return out


def _stage(backbone: Backbone, model: Model, size: Size, said: Mapping[str, Any], *, later: bool) -> Stage:
    """Settle one stage: what is said, else the preset of its size."""
    width, height = size
    check_size(backbone, width, height, name=model.backbone)
    refuse_too_large(backbone, width, height)
    preset = registry().preset(model.backbone, width, height, downscale=backbone.latent.downscale)
    usual = {} if preset is None else {name: getattr(preset, name) for name in EACH}
    chosen = first_said(said, usual, {"restart": RESTART})
    for name in ("steps", "guidance"):
        if name not in chosen:
            raise ConfigError(f"backbone '{model.backbone}' has no preset for {name}: give {name}")
    if not later:
        chosen["restart"] = 1.0
    return Stage(width, height, **chosen)


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
