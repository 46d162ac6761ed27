"""A model with its adapters, from what a user named: found, settled by the rule of precedence, and loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import evolve

from d4k.adapters.files import Adapter, find_adapter, read_adapter
from d4k.adapters.module import apply_adapter, check_scales, loaded_adapters
from d4k.errors import ConfigError, UnknownNameError
from d4k.files import atomic_folder, refuse_used
from d4k.machine import choose_device
from d4k.models import (
    DTYPES,
    Card,
    LoadedModel,
    Loading,
    Model,
    ModelRef,
    Training,
    check_placement,
    find_model,
    speed_up,
    write_card,
)
from d4k.plugins import create
from d4k.protocols import Backbone, Placement

__all__ = ["as_scales", "load_model", "resolve_model", "save_model", "switch_on", "warn_of_conflict"]

DISK = "offload='disk' cannot hold adapters: merge them first (d4k adapter merge), and load the merged model"


def as_scales(given: Sequence[str | Path] | Mapping[str | Path, float] | Mapping[str, float]) -> dict[str, float]:
    """Adapters with their scales, 1 where none is given.

    Raises:
        ConfigError: `given` is not a list or a table, or a scale is not a finite number.

    >>> as_scales(["runs/first"])
    {'runs/first': 1.0}
    """
    if isinstance(given, str | Path):
        raise ConfigError(f"adapters must be a list of files or folders, or a table of their scales, got '{given}'")
    asked = given if isinstance(given, Mapping) else dict.fromkeys(given, 1.0)
    check_scales(asked.values())
    return {str(source): float(scale) for source, scale in asked.items()}


def resolve_model(ref: ModelRef, *, configs: bool = False) -> tuple[Model, list[tuple[Adapter, float]]]:
    """Find a model and read its adapters, with the precedence of `d4k.models.reference` applied.

    Args:
        ref: as the user names it.
        configs: as of `find_model`.

    Returns:
        The model, and each adapter with its scale: first those that belong to the model, then those asked for. One
        that is both has the scale that was asked for.

    Raises:
        UnknownNameError: there is no such model.
        CheckpointError: the model or an adapter cannot be read.
        ConfigError: a scale is not a finite number, or a revision was given for what is not on the Hub.
    """
    scales = as_scales(ref.adapters)
    asked = {find_adapter(source).resolve(): source for source in scales}
    given = {source: read_adapter(source) for source in asked.values()}
    model = find_model(ref, [adapter.training for source, adapter in given.items() if scales[source]], configs=configs)
    own = {find_adapter(source).resolve(): source for source in model.adapters if source not in scales}
    files = {**own, **asked}  # a file that is both keeps the place of the model's, and the name it was asked for by
    adapters = [(given.get(source) or read_adapter(source), scales.get(source, 1.0)) for source in files.values()]
    for adapter, scale in adapters:
        if scale:
            warn_of_conflict(model.training, adapter)
    return evolve(model, adapters={adapter.source: scale for adapter, scale in adapters}), adapters


def warn_of_conflict(training: Training, adapter: Adapter) -> None:
    """Warn where an adapter was trained otherwise than the model says of itself; the model's record counts."""
    ours, its = ({**record.sampling, **record.options} for record in (training, adapter.training))
    sizes = ("width", "height")
    other = [f"{n} {v} (the model with {ours[n]})" for n, v in its.items() if n not in sizes and ours.get(n, v) != v]
    if other:
        warnings.warn(
            f"adapter {adapter.source} was trained with {', '.join(other)}; what is the model's counts", stacklevel=4
        )


def load_model(ref: ModelRef, loading: Loading) -> tuple[Backbone, LoadedModel]:
    """Find a model, load it, and switch its adapters on.

    Args:
        ref: which model.
        loading: how.

    Raises:
        UnknownNameError: there is no such model, dtype, offload, quantisation, back-end or step cache.
        CheckpointError: the model or an adapter cannot be read, or does not fit.
        ConfigError: the backbone has no such option, or this machine cannot do what is asked.
    """
    if loading.dtype not in DTYPES:
        raise UnknownNameError("dtype", loading.dtype, DTYPES)
    if loading.offload == "disk" and ref.adapters:
        raise ConfigError(DISK)
    model, adapters = resolve_model(ref)
    if loading.offload == "disk" and adapters:
        raise ConfigError(DISK)
    backbone: Backbone = create("backbone", model.backbone, source=model.location, **model.options)
    placement = _placement(model, loading)
    check_placement(placement)
    backbone.load(placement)
    loaded = LoadedModel(model, evolve(loading, device=placement.device.type), ref)
    for adapter, scale in adapters:
        loaded = apply_adapter(backbone.trainable, loaded, adapter, scale)
    speed_up(
        backbone.trainable,
        attention=loading.attention,
        compiled=loading.compile,
        step_cache=loading.step_cache,
    )
    return backbone, loaded


def _placement(model: Model, loading: Loading) -> Placement:
    named: dict[str, Any] = {"revision": model.revision, "variant": model.variant, "transformer": model.transformer}
    how: dict[str, Any] = {"offload": loading.offload, "quantize": loading.quantize, "memory_gb": loading.memory_gb}
    return Placement(choose_device(loading.device), DTYPES[loading.dtype], **how, **named)


def switch_on(
    module: torch.nn.Module, loaded: LoadedModel, adapter: Adapter, scale: float, name: str | None = None
) -> LoadedModel:
    """Switch on an adapter of a model that is loaded; what it was trained with holds where the model says nothing.

    Raises:
        CheckpointError: it does not fit; nothing has changed.
        ConfigError: the name or the scale is not allowed, or the weights rest on disk.
    """
    if loaded.loading.offload == "disk":
        raise ConfigError(DISK)
    held = apply_adapter(module, loaded, adapter, scale, name)
    if not scale:
        return held
    warn_of_conflict(held.model.training, adapter)
    return evolve(held, model=evolve(held.model, training=held.model.training.over(adapter.training)))


def save_model(backbone: Backbone, loaded: LoadedModel, folder: Path) -> None:
    """Write a model in the diffusers layout, with its record; see `d4k.Pipeline.save_pretrained`.

    Raises:
        ConfigError: it has adapters that are not merged.
        OutputError: the folder exists and is not empty, or cannot be written.
    """
    if present := loaded_adapters(backbone.trainable):
        raise ConfigError(
            f"the model has adapters ({', '.join(present)}), which are files of their own; "
            "call merge_adapters() to save it with them"
        )
    loaded.refuse("save", "offload", "quantize")
    refuse_used(folder)
    with atomic_folder(folder) as temporary:
        backbone.save(temporary)
        write_card(temporary, Card(loaded.model.backbone, loaded.model.options, loaded.model.training))
