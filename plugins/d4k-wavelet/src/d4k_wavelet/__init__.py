"""Sub-band weighted flow-matching loss for d4k (Diffusion-4K, arXiv 2503.18352)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d4k import hookimpl

if TYPE_CHECKING:
    from d4k.hookspecs import Register


@hookimpl
def register_losses(register: Register) -> None:
    """Register the wavelet loss."""
    register("wavelet", "d4k_wavelet.loss:WaveletLoss", summary="sub-band weighted flow matching (Diffusion-4K)")
