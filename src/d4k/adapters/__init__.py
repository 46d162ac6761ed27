"""Adapters (LoRA): their files, what they are in a denoiser, and models loaded with them."""

from d4k.adapters.files import ADAPTER_WEIGHTS, Adapter, Layout, find_adapter, read_adapter, write_adapter
from d4k.adapters.load import as_scales, load_model, resolve_model, save_model, switch_on, warn_of_conflict
from d4k.adapters.module import (
    TARGETS,
    TRAINED,
    add_adapter,
    apply_adapter,
    check_fit,
    check_scales,
    check_targets,
    load_adapter,
    loaded_adapters,
    merge_adapters,
    scale_adapters,
    set_adapters,
    trained_adapter,
)

__all__ = [
    "ADAPTER_WEIGHTS",
    "TARGETS",
    "TRAINED",
    "Adapter",
    "Layout",
    "add_adapter",
    "apply_adapter",
    "as_scales",
    "check_fit",
    "check_scales",
    "check_targets",
    "find_adapter",
    "load_adapter",
    "load_model",
    "loaded_adapters",
    "merge_adapters",
    "read_adapter",
    "resolve_model",
    "save_model",
    "scale_adapters",
    "set_adapters",
    "switch_on",
    "trained_adapter",
    "warn_of_conflict",
    "write_adapter",
]
