"""A model's backbone on the meta device, with everything that makes it that model: denoiser, adapters, options."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from attrs import evolve

from d4k.adapters import Adapter, load_adapter, read_adapter, set_adapters
from d4k.errors import ConfigError, UnknownNameError, first_line
from d4k.models import DTYPES, ModelRef, Source, UnknownValueError, find_model
from d4k.plugins import Entry, create, registry
from d4k.protocols import Backbone, Placement

__all__ = ["find", "load_shapes", "reference", "refusing", "shapes"]


def shapes(model: str | ModelRef, dtype: str = "bfloat16", **options: Any) -> Backbone:
    """Make a model's backbone on the meta device: it computes shapes, reads no weights and holds none.

    Args:
        model: a registered checkpoint, a folder in the diffusers layout, or a Hub id; or a `ModelRef`.
        dtype: of the weights: "float32", "bfloat16" or "float16".
        options: of the backbone.

    Raises:
        UnknownNameError: there is no such model or dtype.
        CheckpointError: a configuration file is missing, or the Hub cannot be reached for it.

    >>> shapes("sd3-medium", downscale=16).latent.granularity
    32
    """
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    ref = reference(model)
    return load_shapes(find(evolve(ref, options={**ref.options, **options})), dtype)


def reference(model: str | ModelRef) -> ModelRef:
    """The reference that a name is short for."""
    return model if isinstance(model, ModelRef) else ModelRef(model)


def find(ref: ModelRef) -> Source:
    """As `find_model`, but the configuration files that a plugin brings stand for a model on the Hub.

    Returns:
        The model, its options with those that were given and those of its adapters, and all adapters.
    """
    if "source" in ref.options:
        raise ConfigError("'source' is not an option of the backbone but the model itself: give that as the model")
    entry = _with_configs(ref.name) if ref.revision is None else None
    if entry is not None:
        found = Source(entry.backbone, entry.configs, entry.options, variant=ref.variant, transformer=ref.transformer)
    else:
        found = find_model(ref.name, revision=ref.revision, variant=ref.variant, transformer=ref.transformer)
        other = _with_configs(found.location) if found.revision is None else None
        found = found if other is None else evolve(found, location=other.configs)  # of what a run began with
    adapters = tuple(dict.fromkeys((*found.adapters, *map(str, ref.adapters))))
    known = {field.alias for field in attrs.fields(registry().get("backbone", found.backbone).load()) if field.init}
    learnt: dict[str, Any] = {}
    for source in reversed(adapters):
        learnt |= {k: v for k, v in read_adapter(source).training.items() if k in known and k not in found.training}
    return evolve(found, options={**found.options, **learnt, **ref.options}, adapters=adapters)


def load_shapes(found: Source, dtype: str) -> Backbone:
    """A backbone that was found, with its adapters, on the meta device."""
    backbone: Backbone = create("backbone", found.backbone, source=found.location, **found.options)
    device = torch.device("meta")
    with refusing(found.backbone, "is made"):
        backbone.load(Placement(device, DTYPES[dtype], found.revision, found.variant, found.transformer))
    adapters = [read_adapter(source) for source in found.adapters]
    for number, adapter in enumerate(adapters):
        _add(backbone, adapter, f"adapter_{number}")
    if adapters:
        set_adapters(backbone.trainable, {f"adapter_{number}": 1.0 for number in range(len(adapters))})
        backbone.trainable.requires_grad_(False)
    return backbone


def _add(backbone: Backbone, adapter: Adapter, name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*to a meta parameter in the current model, which is a no-op")
        load_adapter(backbone.trainable, adapter, name)


def _with_configs(model: str) -> Entry | None:
    for (kind, name), entries in registry().entries.items():
        if kind == "checkpoint" and model in (name, entries[0].target) and entries[0].configs:
            return registry().get("checkpoint", name)
    return None


@contextmanager
def refusing(name: str, when: str) -> Iterator[None]:
    """Say of a model that it cannot be planned, where it does what the meta device cannot.

    Args:
        name: what the message calls the model.
        when: what it does then, as "is sampled".

    Raises:
        ConfigError: in place of what torch raises.
    """
    try:
        yield
    except UnknownValueError as error:
        raise ConfigError(f"{name} cannot be planned: when it {when}, {error}") from error
    except NotImplementedError as error:
        reason = first_line(error)
        raise ConfigError(
            f"{name} cannot be planned: when it {when}, it does what tensors without values cannot: {reason}"
        ) from error
