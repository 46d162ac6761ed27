"""Sub-band weighted flow-matching loss for d4k (Diffusion-4K, arXiv 2503.18352)."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_losses(register: Callable[..., None]) -> None:
    """Register the wavelet loss."""
    register("wavelet", "d4k_wavelet.loss:WaveletLoss", summary="sub-band weighted flow matching (Diffusion-4K)")
