"""A model's backbone on the meta device, with everything that makes it that model: denoiser, adapters, options."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import evolve

from d4k.adapters import Adapter, load_adapter, resolve_model, set_adapters
from d4k.errors import ConfigError, UnknownNameError, first_line
from d4k.models import DTYPES, Model, ModelRef, UnknownValueError
from d4k.plugins import create
from d4k.protocols import Backbone, Placement

__all__ = ["load_shapes", "reference", "refusing", "shapes"]


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
    return load_shapes(*resolve_model(evolve(ref, options={**ref.options, **options}), configs=True), dtype)


def reference(model: str | ModelRef) -> ModelRef:
    """The reference that a name is short for."""
    return model if isinstance(model, ModelRef) else ModelRef(model)


def load_shapes(model: Model, adapters: Sequence[tuple[Adapter, float]], dtype: str) -> Backbone:
    """A backbone that was found, with its adapters, on the meta device."""
    backbone: Backbone = create("backbone", model.backbone, source=model.location, **model.options)
    device = torch.device("meta")
    with refusing(model.backbone, "is made"):
        backbone.load(Placement(device, DTYPES[dtype], model.revision, model.variant, model.transformer))
    for number, (adapter, _) in enumerate(adapters):
        _add(backbone, adapter, f"adapter_{number}")
    if adapters:
        set_adapters(backbone.trainable, {f"adapter_{n}": scale for n, (_, scale) in enumerate(adapters)})
        backbone.trainable.requires_grad_(False)
    return backbone


def _add(backbone: Backbone, adapter: Adapter, name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*to a meta parameter in the current model, which is a no-op")
        load_adapter(backbone.trainable, adapter, name)


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
