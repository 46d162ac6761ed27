"""Which settings a picture is sampled with: what is given, else what the model says, else the backbone's presets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from d4k.config import shown
from d4k.errors import ConfigError, did_you_mean
from d4k.models import Model, Training, first_said, refuse_too_large
from d4k.plugins import create, registry
from d4k.protocols import Backbone, LatentSpec
from d4k.sampling.loop import restart_of, schedule
from d4k.sampling.settings import CUTOFF, SamplingSettings
from d4k.sampling.stages import Size, Stage, auto_stages, is_auto, stage_sizes
from d4k.values import RESTART, UPSCALER

__all__ = ["check_size", "choose_settings", "deviations", "is_other_size", "own_side", "suggested_stages"]

OTHER_SIZE = 1.5
"""A picture of so many times more or fewer pixels than those trained is sampled at another size."""

EACH = ("steps", "guidance", "shift", "restart")
"""Settings that stages may have one each of."""

JOINING = ("restart", "alignment", "cutoff", "upscaler", "upscaler_options")
"""Settings of a stage that begins with a picture."""


def choose_settings(
    backbone: Backbone, model: Model, given: Mapping[str, Any], *, image: bool = False
) -> SamplingSettings:
    """Settle what a picture is sampled with, by the precedence of `d4k.models.reference`.

    Args:
        backbone: loaded.
        model: what is known of it.
        given: fields of `SamplingSettings`; `stages`: "auto", or sizes as `d4k.sampling.stages.stage_sizes` reads
            them, the last of which is the size of the picture; and `strength`: the share of its steps that the stage
            takes which begins with the picture that is given, in place of its `restart`. None is settled here. With
            stages, `steps`, `guidance` and `shift` may be lists of one for each, and `restart` of one for each stage
            that begins with a picture.
        image: the first stage begins with a picture, too, and not with noise.

    Raises:
        ConfigError: a setting is unknown or out of range, the size does not suit the backbone, nothing says a value, or
            a stage has no step to take.
        UnknownNameError: there is no such upscaler.
    """
    _check_names(given, image)
    own = backbone.defaults
    asked = {name: model.options.get(name, getattr(own, name)) for name in ("steps", "guidance")}
    said = first_said(given, asked, model.training.sampling, model.registered)
    sizes = _sizes(backbone, model, given, said)
    joins = image or len(sizes) > 1
    each = _for_each(said, len(sizes), image)
    stages = [
        _stage(backbone, model, size, one, later=image or place > 0)
        for place, (size, one) in enumerate(zip(sizes, each, strict=True))
    ]
    if (strength := given.get("strength")) is not None:
        stages[0] = attrs.evolve(stages[0], restart=restart_of(backbone, stages[0], strength))
    rest = {name: said[name] for name in said if name not in (*EACH, *OF_SIZE) and (joins or name not in JOINING)}
    settings = SamplingSettings(**attrs.asdict(stages[-1]), earlier=tuple(stages[:-1]), **rest)
    for stage in settings.stages[0 if image else 1 :]:
        _check_join(backbone, stage)
    if joins and given.get("cutoff") not in (None, CUTOFF) and not settings.alignment:
        warnings.warn("cutoff counts only with an alignment above 0: give alignment, too", stacklevel=2)
    if odd := "; ".join(deviations(backbone, model.training, settings)):
        warnings.warn(
            f"'{model.ref.name}' samples otherwise than it was trained: {odd}. Leave these out to sample as trained",
            stacklevel=2,
        )
    return settings


OF_SIZE = ("width", "height", "stages", "strength")
"""What becomes sizes and a restart."""


def _check_names(given: Mapping[str, Any], image: bool) -> None:
    """Refuse what is unknown or contradicts itself; warn of what counts for nothing."""
    known = [*(f.name for f in attrs.fields(SamplingSettings) if f.name != "earlier"), "stages", "strength"]
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown setting '{name}'{did_you_mean(name, known)} Known: {', '.join(known)}.")
    said = first_said(given)
    if "strength" in said:
        if not image:
            raise ConfigError("strength is of a picture to begin with, and none is given: give image, or leave it out")
        if "restart" in said:
            raise ConfigError("strength and restart both say how noisy the picture is made: give one of them")
        value = said["strength"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise ConfigError(f"strength must be a number above 0 and at most 1, got {shown(value)}")
    if "upscaler" in said or "upscaler_options" in said:  # refused before anything is computed
        create("upscaler", said.get("upscaler", UPSCALER), **said.get("upscaler_options", {}))
    idle = [name for name in JOINING if name in said]
    if idle and not image and "stages" not in said:
        warnings.warn(
            f"{' and '.join(idle)} count{'s' * (len(idle) == 1)} only where a picture is begun with, which needs "
            "stages or an image",
            stacklevel=3,
        )


def _sizes(backbone: Backbone, model: Model, given: Mapping[str, Any], said: Mapping[str, Any]) -> list[Size]:
    """The sizes of the stages. Stages that are named say the size themselves, whatever the model was trained at."""
    asked = said.get("stages")
    named = asked is not None and not is_auto(asked)
    width, height = ((given if named else said).get(side) for side in ("width", "height"))
    return stage_sizes(asked, width, height, own_side(backbone, model.training), backbone.latent)


def _check_join(backbone: Backbone, stage: SamplingSettings) -> None:
    """Refuse a stage that has no step to take from a picture; warn where the picture counts for nothing."""
    schedule(backbone, stage, restart=True)
    if stage.restart == 1 and not stage.alignment:
        warnings.warn(
            f"restart 1 begins {stage.width}x{stage.height} with noise alone, so that the picture before it counts for "
            "nothing: give a restart below 1",
            stacklevel=3,
        )


def own_side(backbone: Backbone, training: Training) -> int:
    """Pixels a side of the square pictures that a model knows: those it was fine-tuned at, or else pretrained.

    Args:
        backbone: loaded.
        training: what is known of its fine-tuning.
    """
    sides = [side for side in (training.width, training.height) if side is not None]
    return round(math.sqrt(sides[0] * sides[-1])) if sides else backbone.defaults.size


def suggested_stages(backbone: Backbone, model: Model, settings: SamplingSettings, asked: Any = None) -> str:
    """One line for who asks for a much larger picture than the model knows, without stages; empty for others.

    Args:
        backbone: loaded.
        model: what is known of it.
        settings: as they were settled.
        asked: stages that were asked for: who names one size has chosen to begin there.
    """
    side, size = own_side(backbone, model.training), (settings.width, settings.height)
    first, *more = auto_stages(size, side, backbone.latent.granularity)
    larger = size[0] * size[1] > side * side and is_other_size(size, (side, side))
    if asked is not None or not larger or not more or settings.earlier or settings.restart < 1:
        return ""
    return (
        f"{size[0]}x{size[1]} is beyond what '{model.ref.name}' was trained at ({side}x{side}): add stages='auto' "
        f"(--stages auto), which samples {first[0]}x{first[1]} first"
    )


def _for_each(said: Mapping[str, Any], stages: int, image: bool) -> list[dict[str, Any]]:
    """What each stage is told: its part of a list, or what all are told."""
    out: list[dict[str, Any]] = [{} for _ in range(stages)]
    for name in EACH:
        value = said.get(name)
        first = 0 if image or name != "restart" else 1  # stage that the first of a list is for
        if isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) != stages - first:
                which = "stages that begin with a picture" if name == "restart" else "stages"
                raise ConfigError(
                    f"{name} has {len(value)} values for {stages - first} {which}; give one for all, or one for each"
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

    Another shape of about as many pixels is no other size, and a stage that begins with a picture may have any.
    """
    fixed, stages = dict(backbone.trained_options), settings.stages
    trained = {**training.options, **training.sampling}
    for stage in stages:
        for name, value in {**fixed, "guidance": stage.guidance, "shift": stage.shift}.items():
            if trained.get(name, value) != value:
                yield f"{name} {value}, trained {trained.pop(name)}"
    first = stages[0]
    seen = (training.width or first.width, training.height or first.height)
    if first.restart == 1 and is_other_size((first.width, first.height), seen):
        yield f"size {first.width}x{first.height}, trained {seen[0]}x{seen[1]}"


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
