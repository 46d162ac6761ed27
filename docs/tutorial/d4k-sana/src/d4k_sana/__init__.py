"""Sana as a d4k backbone."""

from __future__ import annotations

from collections.abc import Callable

from d4k import Preset, hookimpl


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register `sana`; it samples as diffusers' `SanaPipeline` does by default."""
    register(
        "sana",
        "d4k_sana.backbone:SanaBackbone",
        summary="Sana (linear attention, autoencoder of stride 32, Gemma-2, classifier-free guidance)",
        pipelines=("SanaPipeline",),
        presets=tuple(Preset(size, steps=20, guidance=4.5) for size in (512, 1024, 2048, 4096)),
    )
