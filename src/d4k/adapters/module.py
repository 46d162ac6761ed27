"""Low-rank adapters (LoRA) in a denoiser: added, checked, weighed, merged.

peft computes them, and diffusers' `PeftAdapterMixin`, which its transformers have, puts them into a model; this module
decides which layers get one, and refuses what does not fit before anything changes.

Source: Hu et al. 2021, arXiv 2106.09685: a layer's weight W becomes `W + alpha / rank * B A`.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from attrs import evolve
from torch import nn

from d4k.adapters.files import DOWN, UP, Adapter
from d4k.adapters.metadata import for_peft
from d4k.config import AdapterSettings
from d4k.errors import CheckpointError, ConfigError, UnknownNameError
from d4k.models import AppliedAdapter, LoadedModel

__all__ = [
    "TARGETS",
    "TRAINED",
    "add_adapter",
    "apply_adapter",
    "check_fit",
    "check_scales",
    "check_targets",
    "load_adapter",
    "loaded_adapters",
    "merge_adapters",
    "scale_adapters",
    "set_adapters",
    "trained_adapter",
]

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Layers that get an adapter by default: the attention projections of the picture's and the text's stream."""

TRAINED = "default"
"""What the adapter of a run is called in the model it was trained in."""


def add_adapter(module: nn.Module, settings: AdapterSettings, *, seed: int = 0) -> None:
    """Freeze a denoiser, and give it a new adapter named `TRAINED` that is trained in float32.

    Args:
        module: a diffusers model without adapters.
        settings: of the adapter.
        seed: of its first matrices; the second ones are zero, so that at first nothing changes.

    Raises:
        ConfigError: see `check_targets`.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank if settings.alpha is None else settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=check_targets(module, settings.targets),
    )
    module.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):  # peft draws on the CPU
        torch.default_generator.manual_seed(seed)
        module.add_adapter(config, TRAINED)  # type: ignore[operator]
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def check_targets(module: nn.Module, wanted: tuple[str, ...] | None) -> list[str]:
    """The targets that a new adapter would have.

    Args:
        module: a diffusers model.
        wanted: ends of the names of layers; None is those of `TARGETS` that there are.

    Raises:
        ConfigError: one that is wanted is the end of no layer's name, or the module takes no adapters.
    """
    _check_module(module)
    layers = [name for name, layer in module.named_modules() if isinstance(_base(layer), nn.Linear | nn.Conv2d)]
    found = [target for target in wanted or TARGETS if any(f".{name}".endswith(f".{target}") for name in layers)]
    missing = [target for target in wanted or TARGETS if target not in found]
    if not missing or (wanted is None and found):
        return found
    ends = sorted({re.sub(r"^\w+\.\d+\.", "", name) for name in layers})
    near = get_close_matches(missing[0], ends, n=5, cutoff=0.5) or ends
    raise ConfigError(
        f"adapter.targets: '{missing[0]}' is the end of no layer's name in this model; near: {', '.join(near[:12])}"
    )


def trained_adapter(module: nn.Module) -> Adapter:
    """The adapter that `add_adapter` put into a denoiser, as it is now."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(module, adapter_name=TRAINED)
    settings, usual = module.peft_config[TRAINED].to_dict(), LoraConfig().to_dict()  # type: ignore[index, union-attr]
    # settings at their default are left out: an older peft would refuse those it does not know
    kept = {key: value for key, value in settings.items() if key in ("r", "lora_alpha") or value != usual[key]}
    kept["target_modules"] = sorted(settings["target_modules"])
    return Adapter("", {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, kept)


def check_fit(module: nn.Module, adapter: Adapter) -> None:
    """Refuse an adapter whose layers are not those of the denoiser.

    Raises:
        CheckpointError: a layer is not there, or of another size; the message names it.
    """
    layers = dict(module.named_modules())
    absent = [name for name in adapter.ranks if name not in layers]
    origin = f"; it was made for '{adapter.base}'" if adapter.base else "; is it for another model?"
    if absent:
        raise CheckpointError(
            f"adapter {adapter.source} does not fit this model: {len(absent)} of its {len(adapter.ranks)} layers are "
            f"not in it, such as '{absent[0]}'{origin}"
        )
    for name in adapter.ranks:
        has = _sides(_base(layers[name]))
        given = (adapter.tensors[name + DOWN].shape[1], adapter.tensors[name + UP].shape[0])
        if has != given:
            raise CheckpointError(
                f"adapter {adapter.source} does not fit this model: it changes '{name}' from {given[0]} to {given[1]} "
                f"features, which here is from {has[0]} to {has[1]}{origin}"
            )


def _base(layer: nn.Module) -> nn.Module:
    """A layer without the adapters that it has."""
    base: nn.Module = getattr(layer, "base_layer", layer)
    return base


def _sides(layer: Any) -> tuple[int, int]:
    """Features into and out of a layer; no features for one that takes no adapter."""
    kind = "channels" if hasattr(layer, "in_channels") else "features"
    return getattr(layer, f"in_{kind}", 0), getattr(layer, f"out_{kind}", 0)


def loaded_adapters(module: nn.Module) -> list[str]:
    """The names of the adapters that a denoiser has, switched on or not."""
    return list(getattr(module, "peft_config", {}))


def load_adapter(module: nn.Module, adapter: Adapter, name: str) -> None:
    """Put an adapter into a denoiser under a name that is not taken; `set_adapters` gives it a scale.

    Raises:
        CheckpointError: it does not fit; the denoiser is as before.
        ConfigError: the denoiser takes no adapters.
    """
    _check_module(module)
    check_fit(module, adapter)
    settings = for_peft(adapter.settings, adapter.ranks)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
            module.load_lora_adapter(  # type: ignore[operator]
                dict(adapter.tensors), prefix=None, adapter_name=name, metadata=settings
            )
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error.__cause__ or error.__context__ or error).strip().split("\n")[0]
        raise CheckpointError(f"adapter {adapter.source} cannot be loaded: {reason}") from error
    module.delete_adapters([])  # type: ignore[operator]  # deletes none; group offloading takes the new layers in
    module.train(module.training)  # new layers begin in training mode, with their dropout on


def apply_adapter(
    module: nn.Module, loaded: LoadedModel, adapter: Adapter, scale: float, name: str | None = None
) -> LoadedModel:
    """Switch on an adapter beside those that are on.

    Args:
        module: the denoiser of the model.
        loaded: the model as it is.
        adapter: read.
        scale: its updates count this many times.
        name: to call it by; None names it after its file or folder.

    Returns:
        The model with the adapter.

    Raises:
        CheckpointError: it does not fit; nothing has changed.
        ConfigError: the name is taken, or has other than letters, digits and underscores, or `scale` is not a number.
    """
    check_scales([scale])
    if name in loaded.adapters:
        raise ConfigError(f"there is an adapter '{name}' already; give another name")
    if name is not None and not re.fullmatch(r"\w+", name):
        raise ConfigError(f"the name of an adapter must be of letters, digits and underscores, got '{name}'")
    free = (f"{adapter.name}_{i}" if i else adapter.name for i in itertools.count())
    chosen = name or next(candidate for candidate in free if candidate not in loaded.adapters)
    load_adapter(module, adapter, chosen)
    applied = AppliedAdapter(chosen, adapter.source, adapter.sha256, float(scale))
    held = {**loaded.adapters, chosen: applied}
    set_adapters(module, {used.name: used.scale for used in held.values()})
    return evolve(loaded, adapters=held)


def scale_adapters(module: nn.Module, loaded: LoadedModel, scales: Mapping[str, float]) -> LoadedModel:
    """Give the adapters of a model other scales; those that are not named are switched off.

    Raises:
        UnknownNameError: there is no adapter of that name.
        ConfigError: a scale is not a finite number.
    """
    check_scales(scales.values())
    set_adapters(module, scales)
    held = {name: evolve(used, scale=float(scales.get(name, 0.0))) for name, used in loaded.adapters.items()}
    return evolve(loaded, adapters=held)


def merge_adapters(module: nn.Module, loaded: LoadedModel) -> LoadedModel:
    """Add the adapters that are on, times their scales, to the denoiser's own weights, and drop them all.

    Raises:
        CheckpointError: a sum is not finite; the denoiser must be loaded again.
        ConfigError: its weights are held in fewer bits, which a sum would be rounded to.
    """
    loaded.refuse("merge adapters into", "quantize")
    active = [used for used in loaded.adapters.values() if used.scale]
    if active:
        names = [used.name for used in active]
        try:
            module.fuse_lora(adapter_names=names, safe_fusing=True)  # type: ignore[operator]
        except ValueError as error:
            raise CheckpointError(
                f"the adapters {', '.join(names)} cannot be merged: a weight would no longer be a finite number. "
                "Are their scales sensible? Load the model again"
            ) from error
    if loaded_adapters(module):
        module.unload_lora()  # type: ignore[operator]
    return evolve(loaded, adapters={}, merged=(*loaded.merged, *active))


def set_adapters(module: nn.Module, scales: Mapping[str, float]) -> None:
    """Switch on the adapters that are named, each times its scale, and the others off; a scale of 0 is off too.

    Raises:
        UnknownNameError: there is no adapter of that name.
    """
    known = loaded_adapters(module)
    for name in scales:
        if name not in known:
            raise UnknownNameError("adapter", name, known)
    active = {name: scale for name, scale in scales.items() if scale}
    if active:
        module.enable_adapters()  # type: ignore[operator]
        module.set_adapters(list(active), list(active.values()))  # type: ignore[operator]
    elif known:
        module.disable_adapters()  # type: ignore[operator]


def check_scales(scales: Iterable[float]) -> None:
    """Refuse what is not a finite number.

    Raises:
        ConfigError: one is not.
    """
    for scale in scales:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
            raise ConfigError(f"the scale of an adapter must be a finite number, got {scale!r}")


def _check_module(module: nn.Module) -> None:
    if not hasattr(module, "load_lora_adapter"):
        raise ConfigError(
            f"{type(module).__name__} takes no adapters: it is not a diffusers model with PeftAdapterMixin"
        )
