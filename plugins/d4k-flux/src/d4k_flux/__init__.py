"""FLUX.1 as a d4k backbone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from d4k import Preset, hookimpl

PRESETS = (
    Preset(1024, steps=50, guidance=3.5),
    Preset(2048, steps=50, guidance=5.0, downscale=16, restart=0.78),
    Preset(2048, steps=50, guidance=5.0, downscale=8, shift=6.3, restart=0.78),
    Preset(4096, steps=50, guidance=5.0, downscale=16, shift=6.3, restart=0.61),
    Preset(4096, steps=50, guidance=5.0, downscale=8, shift=12.6, restart=0.61),
)
"""Beyond 1024, steps and guidance are those of arXiv 2503.18352, and the shift grows with the side of the latent (arXiv
2403.03206, section 5.3.2) where FLUX.1's own would grow exponentially with the tokens: 3.16 at 4,096, 25 at 16,384.
Stages restart where the published settings of HiFlow (arXiv 2504.06232) do: they take the last 16 of 30 steps at 2048
and the last 10 at 4096, which at that shift of 3.16 begin at sigma 0.78 and 0.61."""


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register `flux`."""
    summary = "FLUX.1 (double and single blocks, rotary positions, embedded guidance)"
    register("flux", "d4k_flux.backbone:FluxBackbone", summary=summary, pipelines=("FluxPipeline",), presets=PRESETS)


@hookimpl
def register_checkpoints(register: Callable[..., None]) -> None:
    """Register the published model (weights on the Hub, configuration files here), and that of Diffusion-4K."""
    source, configs = "black-forest-labs/FLUX.1-dev", str(Path(__file__).parent / "configs" / "flux-dev")
    register("flux-dev", backbone="flux", source=source, summary=f"{source} on the Hub (gated)", configs=configs)
    source, summary = "zhang0jhon/flux_wavelet", "FLUX.1-dev fine-tuned at 4K by the authors of Diffusion-4K (34 GB)"
    told = partial(register, options={"downscale": 16}, sampling={"shift": "scheduler"})  # its files do not say so
    told("flux-wavelet", backbone="flux", source=source, summary=summary, configs=configs)
