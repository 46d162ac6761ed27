"""Flow-matching losses in wavelet space for d4k (Diffusion-4K, Latent Wavelet Diffusion, UltraFlux)."""

from __future__ import annotations

from collections.abc import Callable

from d4k import hookimpl


@hookimpl
def register_losses(register: Callable[..., None]) -> None:
    """Register the wavelet losses."""
    register("wavelet", "d4k_wavelet.loss:WaveletLoss", summary="sub-band weighted flow matching (Diffusion-4K)")
    register("wavelet-mask", "d4k_wavelet.mask:WaveletMaskLoss", summary="flow matching where there is detail (LWD)")
    register(
        "wavelet-huber", "d4k_wavelet.huber:WaveletHuberLoss", summary="SNR-weighted Huber of subbands (UltraFlux)"
    )
