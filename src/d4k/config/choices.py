"""The words that settings choose from, each list in its one home."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from d4k.protocols import Density, Weighting

__all__ = [
    "CROPS",
    "DENSITIES",
    "OFFLOADED",
    "OPTIMIZERS",
    "PRECISIONS",
    "QUANTIZATIONS",
    "SCHEDULES",
    "STRATEGIES",
    "WEIGHTINGS",
]

OPTIMIZERS: Final = ("adamw", "adamw-8bit", "adamw-bf16", "prodigy", "schedule-free", "muon")
"""Optimizers of a run by name; any other is named as `module:Class`."""

STRATEGIES: Final = ("auto", "ddp", "fsdp2")
"""How several processes share a run."""

OFFLOADED: Final = ("none", "optimizer", "all")
"""What of a run rests in CPU memory between its uses."""

QUANTIZATIONS: Final = ("int8", "float8", "nf4")
"""How the weights of a denoiser may be held in fewer bits."""

PRECISIONS: Final[Mapping[str, str]] = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""What a run may compute in, by accelerate's word for it, with the name of the torch dtype; "no" is no autocast."""

SCHEDULES: Final = ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial")
"""Learning-rate schedules, as `diffusers.optimization.get_scheduler` calls them."""

DENSITIES: Final[tuple[str, ...]] = get_args(Density)
"""How training samples noise levels; see `d4k.flow.sample_sigma`."""

WEIGHTINGS: Final[tuple[str, ...]] = get_args(Weighting)
"""How the loss of a sample is weighted by its noise level; see `d4k.flow.sigma_weight`."""

CROPS: Final = ("center", "random")
"""Where a picture is cut."""
