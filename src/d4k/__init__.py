"""d4k: fine-tune latent diffusion models at 4K, generate 4096x4096 images, and measure honestly.

The public names are loaded on first use, so `import d4k` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d4k.errors import (
        CheckpointError,
        ConfigError,
        D4KError,
        DataError,
        OutputError,
        PluginError,
        UnknownNameError,
    )
    from d4k.images import Picture
    from d4k.models import Loading, ModelRef
    from d4k.pipeline import Pipeline
    from d4k.plugins import create, hookimpl
    from d4k.protocols import (
        Backbone,
        Caption,
        Captioner,
        Conditioning,
        Dataset,
        Filter,
        FlowStep,
        LatentSpec,
        Limit,
        Loss,
        Metric,
        Placement,
        Preset,
        Sample,
        SamplingDefaults,
        Score,
        Upscaler,
    )
    from d4k.sampling import CleanEstimate, Guide, Job, SamplingSettings
    from d4k.training import Run

__version__ = "0.1.0"

_HOME = {
    "CleanEstimate": "sampling",
    "Guide": "sampling",
    "Job": "sampling",
    "Loading": "models",
    "ModelRef": "models",
    "Picture": "images",
    "Pipeline": "pipeline",
    "Run": "training",
    "SamplingSettings": "sampling",
    "create": "plugins",
    "hookimpl": "plugins",
    **dict.fromkeys(
        [
            "CheckpointError",
            "ConfigError",
            "D4KError",
            "DataError",
            "OutputError",
            "PluginError",
            "UnknownNameError",
        ],
        "errors",
    ),
    **dict.fromkeys(
        [
            "Backbone",
            "Caption",
            "Captioner",
            "Conditioning",
            "Dataset",
            "Filter",
            "FlowStep",
            "LatentSpec",
            "Limit",
            "Loss",
            "Metric",
            "Placement",
            "Preset",
            "Sample",
            "SamplingDefaults",
            "Score",
            "Upscaler",
        ],
        "protocols",
    ),
}

__all__ = [
    "Backbone",
    "Caption",
    "Captioner",
    "CheckpointError",
    "CleanEstimate",
    "Conditioning",
    "ConfigError",
    "D4KError",
    "DataError",
    "Dataset",
    "Filter",
    "FlowStep",
    "Guide",
    "Job",
    "LatentSpec",
    "Limit",
    "Loading",
    "Loss",
    "Metric",
    "ModelRef",
    "OutputError",
    "Picture",
    "Pipeline",
    "Placement",
    "PluginError",
    "Preset",
    "Run",
    "Sample",
    "SamplingDefaults",
    "SamplingSettings",
    "Score",
    "UnknownNameError",
    "Upscaler",
    "create",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'd4k' has no attribute {name!r}")
    value = getattr(import_module(f"d4k.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
