"""FLUX.1 as a d4k backbone."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_backbones(register: Callable[..., None]) -> None:
    """Register `flux`."""
    register(
        "flux",
        "d4k_flux.backbone:FluxBackbone",
        summary="FLUX.1 (double and single blocks, rotary positions, embedded guidance)",
        pipelines=("FluxPipeline",),
    )
