"""Stable Diffusion 3 and 3.5 as a d4k backbone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from d4k import Preset, hookimpl

PRESETS = (
    Preset(1024, steps=28, guidance=7.0),
    Preset(2048, steps=28, guidance=7.0, downscale=16, restart=0.78),
    Preset(2048, steps=28, guidance=7.0, downscale=8, shift=6.0, restart=0.78),
    Preset(4096, steps=28, guidance=7.0, downscale=16, shift=6.0, restart=0.61),
    Preset(4096, steps=28, guidance=7.0, downscale=8, shift=12.0, restart=0.61),
)
"""Steps and guidance of arXiv 2503.18352. SD3's shift of 3 is for a latent of 128x128; it grows with the side of the
latent, arXiv 2403.03206, section 5.3.2. Stages restart where HiFlow's published settings for FLUX.1 do: the last 16 of
30 steps at 2048, the last 10 at 4096, arXiv 2504.06232."""

MEDIUM, LARGE = "stabilityai/stable-diffusion-3-medium-diffusers", "stabilityai/stable-diffusion-3.5-large"


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register `sd3`."""
    summary = "Stable Diffusion 3 and 3.5 (MMDiT, three text encoders, classifier-free guidance)"
    pipelines = ("StableDiffusion3Pipeline",)
    register("sd3", "d4k_sd3.backbone:SD3Backbone", summary=summary, pipelines=pipelines, presets=PRESETS)


@hookimpl
def register_checkpoints(register: Callable[..., None]) -> None:
    """Register the published models: weights on the Hub, configuration files here."""
    for name, source in (("sd3-medium", MEDIUM), ("sd3.5-large", LARGE)):
        configs = str(Path(__file__).parent / "configs" / name)
        register(name, backbone="sd3", source=source, summary=f"{source} on the Hub (gated)", configs=configs)
