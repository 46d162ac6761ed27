"""FLUX.1 as a d4k backbone."""

from __future__ import annotations

from d4k import hookimpl


@hookimpl
def register_backbones(register):  # type: ignore[no-untyped-def]
    """Register `flux`."""
    register(
        "flux",
        "d4k_flux.backbone:FluxBackbone",
        summary="FLUX.1 (double and single blocks, rotary positions, embedded guidance)",
        pipelines=("FluxPipeline",),
    )
