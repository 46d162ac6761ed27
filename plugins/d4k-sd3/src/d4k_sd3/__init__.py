"""Stable Diffusion 3 and 3.5 as a d4k backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from d4k import Preset, hookimpl

PRESETS = tuple(Preset(size, steps=28, guidance=7.0) for size in (1024, 2048, 4096))
"""Those of the paper: arXiv 2503.18352."""

PUBLISHED = {
    "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
    "sd3.5-large": "stabilityai/stable-diffusion-3.5-large",
}


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register `sd3`."""
    register(
        "sd3",
        "d4k_sd3.backbone:SD3Backbone",
        summary="Stable Diffusion 3 and 3.5 (MMDiT, three text encoders, classifier-free guidance)",
        pipelines=("StableDiffusion3Pipeline",),
        presets=PRESETS,
    )


@hookimpl
def register_checkpoints(register: Callable[..., None]) -> None:
    """Register the published models: weights on the Hub, configuration files here."""
    for name, source in PUBLISHED.items():
        configs = str(Path(__file__).parent / "configs" / name)
        register(name, backbone="sd3", source=source, summary=f"{source} on the Hub (gated)", configs=configs)
