"""Low-rank adapters (LoRA): their files, and what they are in a denoiser."""

from d4k.adapters.files import ADAPTER_WEIGHTS, Adapter, Layout, find_adapter, read_adapter, write_adapter
from d4k.adapters.module import (
    TARGETS,
    TRAINED,
    Applied,
    add_adapter,
    check_fit,
    check_scales,
    check_targets,
    load_adapter,
    loaded_adapters,
    merge_adapters,
    scaled_adapters,
    set_adapters,
    trained_adapter,
)

__all__ = [
    "ADAPTER_WEIGHTS",
    "TARGETS",
    "TRAINED",
    "Adapter",
    "Applied",
    "Layout",
    "add_adapter",
    "check_fit",
    "check_scales",
    "check_targets",
    "find_adapter",
    "load_adapter",
    "loaded_adapters",
    "merge_adapters",
    "read_adapter",
    "scaled_adapters",
    "set_adapters",
    "trained_adapter",
    "write_adapter",
]
