"""The settings of a fine-tuning run: frozen classes, TOML in, a resolved copy out.

Every field is a key of the TOML file; a key that does not exist is an error with a suggestion.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import attrs
from attrs import field, frozen

from d4k.errors import ConfigError, did_you_mean
from d4k.files import write_text

__all__ = [
    "AdapterSettings",
    "Component",
    "DataSettings",
    "FlowSettings",
    "OptimizerSettings",
    "RunConfig",
    "ScheduleSettings",
    "TrainingSettings",
    "from_mapping",
    "read_toml",
    "with_settings",
    "write_toml",
]

T = TypeVar("T")
Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def whole(minimum: int) -> Validator:
    """A whole number of at least `minimum`."""
    return _rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= minimum,
        f"a whole number of at least {minimum}",
    )


def number(
    minimum: float = -math.inf, maximum: float = math.inf, *, above: bool = False, below: bool = False
) -> Validator:
    """A finite number from `minimum` to `maximum`; with `above` or `below`, without that end."""
    ends = []
    if minimum > -math.inf:
        ends.append(f"{'above' if above else 'of at least'} {minimum:g}")
    if maximum < math.inf:
        ends.append(f"{'below' if below else 'at most'} {maximum:g}")

    def allowed(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return False
        return (value > minimum if above else value >= minimum) and (value < maximum if below else value <= maximum)

    return _rule(allowed, f"a number {' and '.join(ends)}" if ends else "a finite number")


def one_of(*choices: str) -> Validator:
    """One of some words."""
    return _rule(lambda value: value in choices, f"one of {', '.join(choices)}")


def text() -> Validator:
    """A string that is not empty."""
    return _rule(lambda value: isinstance(value, str) and bool(value), "a string that is not empty")


def flag() -> Validator:
    """True or false."""
    return _rule(lambda value: isinstance(value, bool), "true or false")


def table() -> Validator:
    """A table of options."""
    return _rule(lambda value: isinstance(value, Mapping), "a table of options")


def names() -> Validator:
    """Words, one or more."""
    return _rule(
        lambda value: isinstance(value, tuple) and bool(value) and all(isinstance(n, str) and n for n in value),
        "a list of words, not empty",
    )


def optional(rule: Validator) -> Validator:
    """None, or what `rule` allows."""

    def check(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not None:
            rule(owner, attribute, value)

    return check


def _rule(allowed: Callable[[Any], bool], words: str) -> Validator:
    def check(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
        if not allowed(value):
            raise ConfigError(f"{attribute.name} must be {words}, got {value!r}")

    return check


@frozen
class Component:
    """A registered component by name.

    Args:
        name: as `d4k plugins` lists it.
        options: of the component.
    """

    name: str = field(validator=text())
    options: Mapping[str, Any] = field(factory=dict, validator=table())


@frozen
class DataSettings:
    """How pictures are cut.

    Args:
        width: pixels; None is the backbone's own size.
        height: pixels; None is the backbone's own size.
        crop: `center`, or `random` (seeded, new in every epoch).
        flip: mirror half of the pictures.
    """

    width: int | None = field(default=None, validator=optional(whole(1)))
    height: int | None = field(default=None, validator=optional(whole(1)))
    crop: Literal["center", "random"] = field(default="center", validator=one_of("center", "random"))
    flip: bool = field(default=False, validator=flag())


@frozen
class FlowSettings:
    """Which noise levels are trained, and how much each counts; see `d4k.flow`.

    Args:
        density: `uniform` (Diffusion-4K), `logit-normal` (SD3) or `mode`.
        mean: of the logit-normal density.
        std: of the logit-normal density.
        mode_scale: of the mode density, from -1 to 2 / (pi - 2).
        shift: moves noise levels towards 1; 1 changes nothing.
        weighting: `none`, `sigma-sqrt` or `cosmap`.
        guidance: embedded guidance while training; None is the backbone's own.
    """

    density: Literal["uniform", "logit-normal", "mode"] = field(
        default="logit-normal", validator=one_of("uniform", "logit-normal", "mode")
    )
    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(0, above=True))
    mode_scale: float = field(default=1.29, validator=number(-1, 2 / (math.pi - 2)))
    shift: float = field(default=1.0, validator=number(0, above=True))
    weighting: Literal["none", "sigma-sqrt", "cosmap"] = field(
        default="none", validator=one_of("none", "sigma-sqrt", "cosmap")
    )
    guidance: float | None = field(default=None, validator=optional(number(0)))


@frozen
class OptimizerSettings:
    """AdamW.

    Args:
        name: `adamw`, or `adamw-8bit` (needs bitsandbytes).
        lr: learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the denominator.
        weight_decay: decoupled.
    """

    name: str = field(default="adamw", validator=one_of("adamw", "adamw-8bit"))
    lr: float = field(default=1e-4, validator=number(0, above=True))
    beta1: float = field(default=0.9, validator=number(0, 1, below=True))
    beta2: float = field(default=0.999, validator=number(0, 1, below=True))
    eps: float = field(default=1e-8, validator=number(0, above=True))
    weight_decay: float = field(default=1e-4, validator=number(0))


@frozen
class ScheduleSettings:
    """Learning-rate schedule of diffusers.

    Args:
        name: what `diffusers.optimization.get_scheduler` calls it.
        warmup_steps: steps from zero to the full rate; not with `constant`.
    """

    name: str = field(
        default="constant",
        validator=one_of("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
    )
    warmup_steps: int = field(default=0, validator=whole(0))

    @warmup_steps.validator
    def _check_used(self, attribute: attrs.Attribute[int], value: int) -> None:
        if value and self.name == "constant":
            raise ConfigError(f"{attribute.name} has no effect on 'constant'; choose 'constant_with_warmup'")


@frozen
class TrainingSettings:
    """The loop.

    Args:
        steps: optimizer steps.
        batch_size: pictures of one forward pass, on each process.
        accumulation: forward passes of one optimizer step.
        clip: largest norm of the gradient; 0 does not clip.
        gradient_checkpointing: recompute activations instead of keeping them.
        precision: `no` (float32), `bf16` or `fp16`; mixed precision of accelerate.
        caption_dropout: share of captions replaced by the empty one, so that classifier-free guidance keeps working.
        save_every: steps between checkpoints; 0 saves only at the end.
    """

    steps: int = field(default=1000, validator=whole(1))
    batch_size: int = field(default=1, validator=whole(1))
    accumulation: int = field(default=1, validator=whole(1))
    clip: float = field(default=1.0, validator=number(0))
    gradient_checkpointing: bool = field(default=False, validator=flag())
    precision: str = field(default="no", validator=one_of("no", "bf16", "fp16"))
    caption_dropout: float = field(default=0.1, validator=number(0, 1))
    save_every: int = field(default=500, validator=whole(0))


def _words(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@frozen
class AdapterSettings:
    """A low-rank adapter (LoRA), trained in place of the model's own weights, which stay as they are.

    Args:
        rank: of each update; more can hold more, and takes more room.
        alpha: an update counts alpha / rank; None is the rank, so that it counts 1.
        targets: ends of the names of the layers that get one; None is the attention projections.
        dropout: share of a layer's input that its adapter does not see while training.

    Source: Hu et al. 2021, arXiv 2106.09685.
    """

    rank: int = field(default=16, validator=whole(1))
    alpha: float | None = field(default=None, validator=optional(number(0, above=True)))
    targets: tuple[str, ...] | None = field(default=None, converter=_words, validator=optional(names()))
    dropout: float = field(default=0.0, validator=number(0, 1, below=True))


@frozen
class RunConfig:
    """Everything that defines a run.

    Args:
        model: a registered checkpoint, a local folder in the diffusers layout, or a Hub id.
        dataset: what to train on.
        output_dir: folder of the run; must not exist, or be empty, unless the run is resumed.
        loss: what to minimise.
        seed: of crops, noise and noise levels.
        revision: of a Hub id: branch, tag or commit.
        variant: of the model's weight files, such as `fp16`.
        transformer: a file, a folder or a Hub id whose denoiser replaces that of the model.
        backbone: options of the model's backbone.
        data: how pictures are cut.
        flow: which noise levels are trained.
        optimizer: AdamW.
        schedule: of the learning rate.
        training: the loop.
        adapter: train a low-rank adapter (LoRA) in place of the model's weights; None trains the weights.
    """

    model: str = field(validator=text())
    dataset: Component
    output_dir: str = field(validator=text())
    loss: Component = Component("wavelet")
    seed: int = field(default=0, validator=whole(0))
    revision: str | None = field(default=None, validator=optional(text()))
    variant: str | None = field(default=None, validator=optional(text()))
    transformer: str | None = field(default=None, validator=optional(text()))
    backbone: Mapping[str, Any] = field(factory=dict, validator=table())
    data: DataSettings = DataSettings()
    flow: FlowSettings = FlowSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    adapter: AdapterSettings | None = None


def from_mapping(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build a settings class from nested mappings.

    Raises:
        ConfigError: a key is unknown, missing, or its value is not allowed; the message names the key in full.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where.rstrip('.')} must be a table, got {data!r}")
    hints, values = get_type_hints(cls), {}
    known = {f.name: f for f in attrs.fields(cls)}  # type: ignore[arg-type]
    for key, value in data.items():
        if key not in known:
            raise ConfigError(f"unknown key '{where}{key}'{did_you_mean(key, known)} Known: {', '.join(known)}.")
        section = settings_class(hints[key])
        nested = section is not None and value is not None and not attrs.has(type(value))
        if nested and isinstance(value, Mapping):
            value = {**_parts(known[key].default), **value}
        values[key] = from_mapping(section, value, f"{where}{key}.") if nested else value
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    except TypeError as error:
        absent = [f.name for f in attrs.fields(cls) if f.default is attrs.NOTHING and f.name not in values]  # type: ignore[arg-type]
        raise ConfigError(f"missing key '{where}{absent[0]}'" if absent else str(error)) from error


def settings_class(hint: Any) -> Any:
    """The settings class that a field's type names, alone or beside None; None if it names none."""
    return next((choice for choice in (hint, *get_args(hint)) if attrs.has(choice)), None)


def _parts(default: Any) -> dict[str, Any]:
    """The fields of a default that is a settings class itself: what a table that sets some of them leaves as it is."""
    return {f.name: getattr(default, f.name) for f in attrs.fields(type(default))} if attrs.has(type(default)) else {}


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def with_settings(data: Mapping[str, Any], settings: list[str]) -> dict[str, Any]:
    """Apply `key=value` settings to nested tables; values are TOML, or else plain strings.

    >>> with_settings({"training": {"steps": 5}}, ["training.steps=10", "loss.name=mse"])
    {'training': {'steps': 10}, 'loss': {'name': 'mse'}}
    """
    result = {k: dict(v) if isinstance(v, Mapping) else v for k, v in data.items()}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"cannot read the setting '{setting}'; write it as key=value, e.g. training.steps=100")
        inner = result
        *sections, last = key.strip().split(".")
        for section in sections:
            below = inner.get(section, {})
            if not isinstance(below, Mapping):
                raise ConfigError(f"cannot set '{key.strip()}': '{section}' is a value, not a table")
            inner[section] = inner = dict(below)
        inner[last] = _value(value.strip())
    return result


def write_toml(config: Any, path: Path) -> None:
    """Write a settings class as TOML; None, which TOML lacks, is left out."""
    import tomli_w

    write_text(path, tomli_w.dumps(_without_none(attrs.asdict(config))))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value
