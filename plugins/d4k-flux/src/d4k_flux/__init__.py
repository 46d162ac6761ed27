"""FLUX.1 as a d4k backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from d4k import Preset, hookimpl

PRESETS = (
    Preset(1024, steps=50, guidance=3.5),
    Preset(2048, steps=50, guidance=5.0),
    Preset(4096, steps=50, guidance=5.0),
)
"""At 1024 those of the model, beyond it those of arXiv 2503.18352."""


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register `flux`."""
    register(
        "flux",
        "d4k_flux.backbone:FluxBackbone",
        summary="FLUX.1 (double and single blocks, rotary positions, embedded guidance)",
        pipelines=("FluxPipeline",),
        presets=PRESETS,
    )


@hookimpl
def register_checkpoints(register: Callable[..., None]) -> None:
    """Register the published model: weights on the Hub, configuration files here."""
    source, configs = "black-forest-labs/FLUX.1-dev", str(Path(__file__).parent / "configs" / "flux-dev")
    register("flux-dev", backbone="flux", source=source, summary=f"{source} on the Hub (gated)", configs=configs)
