"""Records that others may have written: JSON that is checked before anything in it is used.

What a picture or a `d4k.json` says is somebody else's text. `d4k.files.parse_json` turns it into plain values, or into
one error; `read_record` checks the values against a frozen class, as `d4k.config` does with TOML.

A key that the class does not have is passed over: a newer d4k that adds a key which an older one may do without keeps
the record's `format`, and one whose key an older d4k must not miss raises the number, which the older one refuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_type_hints

import attrs
from attrs import field, frozen

from d4k.config import T, from_mapping, number, one_of, optional, settings_class, table, text, whole
from d4k.errors import ConfigError, D4KError

__all__ = [
    "FORMAT",
    "AdapterRecord",
    "CardRecord",
    "RecipeRecord",
    "StageRecord",
    "TrainingRecord",
    "read_record",
]

FORMAT = 1
"""Of `d4k.json`: raised when an older d4k must not read it."""


def read_record(cls: type[T], data: Any, where: object, error: type[D4KError]) -> T:
    """Check a record against its class.

    Args:
        cls: attrs class with the validators of `d4k.config`, one field a key.
        data: from `d4k.files.parse_json`.
        where: what messages call the record, such as its path.
        error: raised for whatever is wrong with it.

    Raises:
        D4KError: of the type `error`: a key is missing, or its value is not allowed; the message names the key.
    """
    if not isinstance(data, Mapping):
        raise error(f"{where} must hold a JSON object, got {type(data).__name__}")
    try:
        return from_mapping(cls, _known(cls, data))
    except ConfigError as fault:
        raise error(f"{where}: {_short(fault)}") from fault


def _known(cls: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """What a class has fields for, at every level."""
    hints = get_type_hints(cls)
    sections = {name: settings_class(hints[name]) for name in data if name in hints}
    return {
        name: _known(section, data[name]) if section and isinstance(data[name], Mapping) else data[name]
        for name, section in sections.items()
    }


def _short(fault: Exception) -> str:
    words = str(fault)
    return words if len(words) <= 400 else f"{words[:200]} … {words[-100:]}"


def _is_text(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if not isinstance(value, str):
        raise ConfigError(f"{attribute.name} must be a string, got {value!r}")


def _is_flag(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if value is not True and value is not False:
        raise ConfigError(f"{attribute.name} must be true or false, got {value!r}")


def _is_options(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    table()(owner, attribute, value)
    if "source" in value:
        raise ConfigError(f"{attribute.name} cannot hold 'source': where a model is read from is no option of it")


def _is_shift(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and value != "scheduler":
        number(0, above=True)(owner, attribute, value)


def _is_own_shift(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value != "scheduler":
        number(0, above=True)(owner, attribute, value)


def _is_sha256(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ConfigError(f"{attribute.name} must be 64 hexadecimal digits, got {value!r}")


def _is_path(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    text()(owner, attribute, value)
    if "\0" in value:
        raise ConfigError(f"{attribute.name} holds a NUL character, which no path does")


def _is_versions(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    table()(owner, attribute, value)
    for name, version in value.items():
        if not isinstance(version, str):
            raise ConfigError(f"{attribute.name}.{name} must be a string, got {version!r}")


def _is_training(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if not isinstance(value, TrainingRecord):
        raise ConfigError(f"{attribute.name} must be a table, got {value!r}")


SIDE = whole(1, 2**20)
SHA256 = re.compile("[0-9a-f]{64}")


@frozen
class TrainingRecord:
    """What the weights beside a `d4k.json` were trained with.

    Args:
        width: pixels of the pictures they saw.
        height: likewise.
        guidance: the scale that was an input of the denoiser.
        shift: of the noise levels.
        options: of the backbone, as they were in force.
        ema: decay of the moving average that the weights are.
    """

    width: int | None = field(default=None, validator=optional(SIDE))
    height: int | None = field(default=None, validator=optional(SIDE))
    guidance: float | None = field(default=None, validator=optional(number(0)))
    shift: float | str | None = field(default=None, validator=_is_shift)
    options: Mapping[str, Any] = field(factory=dict, validator=_is_options)
    ema: float | None = field(default=None, validator=optional(number(0, 1, below=True)))


@frozen
class CardRecord:
    """`d4k.json`, beside the weights of a model or an adapter.

    Args:
        format: of the record.
        backbone: registered name; empty where it is detected.
        options: of the backbone.
        training: what the weights were trained with.
        base: of an adapter, the model that it was trained on.
        revision: of the base.
        variant: of the base.
        transformer: of the base.
    """

    format: int = field(default=FORMAT, validator=whole(1, FORMAT))
    backbone: str = field(default="", validator=_is_text)
    options: Mapping[str, Any] = field(factory=dict, validator=_is_options)
    training: TrainingRecord = field(default=TrainingRecord(), validator=_is_training)
    base: str | None = field(default=None, validator=optional(text()))
    revision: str | None = field(default=None, validator=optional(text()))
    variant: str | None = field(default=None, validator=optional(text()))
    transformer: str | None = field(default=None, validator=optional(text()))


@frozen
class AdapterRecord:
    """An adapter in a recipe.

    Args:
        source: file, folder or Hub id.
        sha256: of the file, in hexadecimal.
        scale: its updates count this many times.
        name: in the model.
    """

    source: str = field(validator=text())
    sha256: str = field(validator=_is_text)
    scale: float = field(validator=number())
    name: str = field(default="", validator=_is_text)


@frozen
class StageRecord:
    """A stage in a recipe, before the one that the picture has its size from.

    Args:
        width: pixels.
        height: pixels.
        steps: of the sampling loop.
        guidance: scale.
        shift: of the noise levels; `"scheduler"` is the scheduler's own.
        restart: noise level that the stage began at.
    """

    width: int = field(validator=SIDE)
    height: int = field(validator=SIDE)
    steps: int = field(validator=whole(1, 100_000))
    guidance: float = field(validator=number(0))
    shift: float | str = field(default="scheduler", validator=_is_own_shift)
    restart: float = field(default=1.0, validator=number(0, 1, above=True))


def _stages(value: Any) -> Any:
    if isinstance(value, StageRecord | tuple):
        return value
    if not isinstance(value, list):
        raise ConfigError(f"earlier must be a list, got {value!r}")
    return tuple(read_record(StageRecord, each, f"earlier[{i}]", ConfigError) for i, each in enumerate(value))


def _adapters(value: Any) -> Any:
    if isinstance(value, AdapterRecord | tuple):
        return value
    if not isinstance(value, list):
        raise ConfigError(f"adapters must be a list, got {value!r}")
    return tuple(read_record(AdapterRecord, each, f"adapters[{i}]", ConfigError) for i, each in enumerate(value))


@frozen
class RecipeRecord:
    """The recipe in a picture: all that made it what it is.

    Args:
        prompt: what was asked for.
        seed: from 0 to 2**63 - 1.
        model: registered name, folder or Hub id.
        width: pixels.
        height: pixels.
        steps: of the sampling loop.
        guidance: scale.
        shift: of the noise levels; `"scheduler"` or None is the scheduler's own.
        restart: noise level that the picture's own size began at.
        negative_prompt: what was steered away from.
        alignment: strength of the low-frequency guidance.
        cutoff: which frequencies counted as low there.
        upscaler: registered name of what enlarged pictures.
        upscaler_options: of the upscaler.
        upscaler_settings: what the upscaler said of itself.
        earlier: the stages before the picture's own size.
        image: file of the picture that it was begun with.
        image_sha256: of that file, in hexadecimal.
        guide: name of what changed the clean estimates.
        options: of the backbone.
        revision: of the model.
        variant: of the model's weight files.
        transformer: the denoiser in place of the model's own.
        adapters: that were switched on.
        dtype: of the weights.
        device: computed on.
        quantize: how the denoiser was held.
        attention: back-end.
        compile: whether the denoiser was compiled.
        step_cache: what was skipped between steps.
        versions: of the packages that made it.
    """

    prompt: str = field(validator=_is_text)
    seed: int = field(validator=whole(0, 2**63 - 1))
    model: str = field(validator=text())
    width: int = field(validator=SIDE)
    height: int = field(validator=SIDE)
    steps: int = field(validator=whole(1, 100_000))
    guidance: float = field(validator=number(0))
    shift: float | str | None = field(default=None, validator=_is_shift)
    restart: float = field(default=1.0, validator=number(0, 1, above=True))
    negative_prompt: str = field(default="", validator=_is_text)
    alignment: float = field(default=0.0, validator=number(0, 1))
    cutoff: float | None = field(default=None, validator=optional(number(0, 1)))
    upscaler: str | None = field(default=None, validator=optional(text()))
    upscaler_options: Mapping[str, Any] = field(factory=dict, validator=table())
    upscaler_settings: Mapping[str, Any] = field(factory=dict, validator=table())
    earlier: tuple[StageRecord, ...] = field(default=(), converter=_stages)
    image: str | None = field(default=None, validator=optional(_is_path))
    image_sha256: str | None = field(default=None, validator=optional(_is_sha256))
    guide: str | None = field(default=None, validator=optional(_is_text))
    options: Mapping[str, Any] = field(factory=dict, validator=_is_options)
    revision: str | None = field(default=None, validator=optional(text()))
    variant: str | None = field(default=None, validator=optional(text()))
    transformer: str | None = field(default=None, validator=optional(text()))
    adapters: tuple[AdapterRecord, ...] = field(default=(), converter=_adapters)
    dtype: str | None = field(default=None, validator=optional(one_of("float32", "bfloat16", "float16")))
    device: str | None = field(default=None, validator=optional(text()))
    quantize: str | None = field(default=None, validator=optional(text()))
    attention: str | None = field(default=None, validator=optional(text()))
    compile: bool | None = field(default=None, validator=optional(_is_flag))
    step_cache: str | None = field(default=None, validator=optional(text()))
    versions: Mapping[str, Any] = field(factory=dict, validator=_is_versions)
