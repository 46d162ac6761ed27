"""Super-resolution networks as upscalers of d4k: whatever spandrel reads, from a local file, in tiles."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_upscalers(register: Callable[..., None]) -> None:
    """Register the network that a file holds."""
    register(
        "spandrel",
        "d4k_spandrel.upscaler:Spandrel",
        summary="super-resolution network from a local file: ESRGAN, SwinIR, DAT and what else spandrel reads",
    )
