"""Pixels to latents and back through any diffusers `AutoencoderKL`: exact, and within the memory there is.

Tiled autoencoders cut a picture into tiles that each normalise by their own statistics, which changes the image and
leaves seams. Here the network is run band by band instead, and computes the same function as the whole: convolutions
see the rows around each band, group normalisation uses the statistics of the whole map, attention runs whole.

`downscale` is what one latent row stands for in pixels. Beside the autoencoder's own (F8, mostly) it may be twice that:
Diffusion-4K's F16 uses the same weights with a first encoder convolution of stride 2, and doubles the picture (nearest
neighbour) before the last decoder convolution.

Inference only: no graph for gradients is built. To fine-tune an autoencoder, call its own `encode` and `decode`.

Source: Diffusion-4K, arXiv 2503.18352, section 3.2 (partitioned VAE).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from d4k.autoencoder.bands import Workspace, decode_map, encode_map
from d4k.autoencoder.posterior import Posterior
from d4k.errors import ConfigError
from d4k.machine import free_bytes

INFINITE = float("inf")
POLICIES = ("fitting", "none", "all")  # in the order of speed, where there is a choice
SHARE = 0.8  # of the memory that is free; the rest is for what else the process does

LOWEST, HIGHEST = -30.0, 20.0  # of a log-variance, before it is scaled: where diffusers' own posterior ends

__all__ = ["decode", "encode", "footprint", "own_downscale", "posterior"]


def encode(vae: Any, pixels: Tensor, *, downscale: int, memory_gb: float | None = None) -> Tensor:
    """The mode of the posterior, shifted and scaled to about unit variance.

    Args:
        vae: a diffusers `AutoencoderKL`.
        pixels: (B, 3, H, W) in [-1, 1], any device and dtype; H and W multiples of `downscale`.
        downscale: pixels a latent row stands for: the autoencoder's own, or twice that.
        memory_gb: what maps may take beside the weights, in 10^9 bytes; None measures what is free. The result does
            not depend on it but for rounding.

    Returns:
        (B, C, h, w): `(mode - shift_factor) * scaling_factor`, on the autoencoder's device, in its dtype.

    Raises:
        ConfigError: the memory does not suffice, the size or `downscale` does not fit, the autoencoder is not of plain
            convolution blocks, or `pixels` asks for a gradient.
    """
    return posterior(vae, pixels, downscale=downscale, memory_gb=memory_gb).mean


def posterior(vae: Any, pixels: Tensor, *, downscale: int, memory_gb: float | None = None) -> Posterior:
    """The distribution of latents that the autoencoder makes of pictures, shifted and scaled as `encode` does.

    Args:
        vae: a diffusers `AutoencoderKL`.
        pixels: as of `encode`.
        downscale: likewise.
        memory_gb: likewise.

    Returns:
        A mean that is what `encode` returns, and the logarithm of the variance around it,
        `log_variance + 2 log(scaling_factor)`, where diffusers' bounds of -30 and 20 hold before scaling.

    Raises:
        ConfigError: as `encode`.

    Source: Rombach et al. 2022, arXiv 2112.10752, appendix G.
    """
    own = _check(vae, downscale, pixels, vae.config.in_channels)
    height, width = pixels.shape[-2:]
    work = _workspace(vae, height, width, downscale, memory_gb, encoding=True)
    means, variances = [], []
    with torch.no_grad():
        for picture in pixels.to(vae.device, vae.dtype):
            encoded = encode_map(work, vae.encoder, work.hold(picture[None]), stride=downscale // own)
            moments = encoded.values if vae.quant_conv is None else vae.quant_conv(encoded.values)
            mean, variance = moments.chunk(2, 1)
            means.append(mean)
            variances.append(variance)
            work.free(encoded)
        latents = torch.cat(means).contiguous()
        scaled = (latents - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
        spread = torch.cat(variances).contiguous().clamp(LOWEST, HIGHEST) + 2 * math.log(vae.config.scaling_factor)
        return Posterior(scaled, spread)


def decode(vae: Any, latents: Tensor, *, downscale: int, memory_gb: float | None = None) -> Tensor:
    """Inverse of `encode`, up to what the autoencoder loses.

    Args:
        vae: a diffusers `AutoencoderKL`.
        latents: (B, C, h, w), any device and dtype.
        downscale: pixels a latent row stands for: the autoencoder's own, or twice that.
        memory_gb: what maps may take beside the weights, in 10^9 bytes; None measures what is free. The result does
            not depend on it but for rounding.

    Returns:
        (B, 3, H, W), about in [-1, 1], on the autoencoder's device, in its dtype.

    Raises:
        ConfigError: the memory does not suffice, `downscale` does not fit, the autoencoder is not of plain convolution
            blocks, or `latents` asks for a gradient.
    """
    own = _check(vae, downscale, latents, vae.config.latent_channels)
    height, width = (side * downscale for side in latents.shape[-2:])
    work = _workspace(vae, height, width, downscale, memory_gb, encoding=False)
    pictures = []
    with torch.no_grad():
        plain = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        plain = plain if vae.post_quant_conv is None else vae.post_quant_conv(plain)
        for latent in plain:
            picture = decode_map(work, vae.decoder, work.hold(latent[None]), enlarge=downscale > own)
            pictures.append(picture.values)
            work.free(picture)
        return torch.cat(pictures).contiguous()


def footprint(
    vae: Any, height: int, width: int, *, downscale: int, memory_gb: float | None = None, encoding: bool = False
) -> int:
    """Bytes beside the weights that decoding or encoding one picture takes at its peak.

    Args:
        vae: a diffusers `AutoencoderKL`, also on the meta device.
        height: of the picture in pixels.
        width: likewise.
        downscale: pixels a latent row stands for.
        memory_gb: what maps may take; None is no limit, 0 tells the least that is possible.
        encoding: of encoding rather than decoding.
    """
    _check(vae, downscale)
    limit = INFINITE if memory_gb is None else round(memory_gb * 1e9)
    peaks = [_peak(vae, height, width, downscale, limit, keeping, encoding) for keeping in POLICIES]
    return next((peak for peak in peaks if peak <= limit), min(peaks))


def own_downscale(vae: Any) -> int:
    """Pixels a latent row of a diffusers `AutoencoderKL` stands for, by its configuration."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _workspace(
    vae: Any, height: int, width: int, downscale: int, memory_gb: float | None, *, encoding: bool
) -> Workspace:
    """A workspace within the stated memory, or within most of what is free."""
    limit = SHARE * free_bytes(vae.device) if memory_gb is None else round(memory_gb * 1e9)
    peaks = {keeping: _peak(vae, height, width, downscale, limit, keeping, encoding) for keeping in POLICIES}
    keeping = next((keeping for keeping in POLICIES if peaks[keeping] <= limit), min(peaks, key=peaks.__getitem__))
    if memory_gb is not None and peaks[keeping] > limit:
        least = footprint(vae, height, width, downscale=downscale, memory_gb=0, encoding=encoding)
        task, dtype = "encode" if encoding else "decode", str(vae.dtype).removeprefix("torch.")
        raise ConfigError(
            f"memory_gb={memory_gb:g} is too little to {task} {width}x{height} pixels in {dtype}: it takes at least "
            f"{math.ceil(least / 1e5) / 1e4:g} GB. Give more, or a smaller size"
        )
    return Workspace(vae.device, vae.dtype, limit, keeping)


def _peak(vae: Any, height: int, width: int, downscale: int, limit: float, keeping: str, encoding: bool) -> int:
    """Bytes at the peak of a run that is walked through without tensors."""
    work, own = Workspace(torch.device("meta"), vae.dtype, limit, keeping), own_downscale(vae)
    if encoding:
        encode_map(work, vae.encoder, work.hold((vae.config.in_channels, height, width)), stride=downscale // own)
    else:
        latent = work.hold((vae.config.latent_channels, height // downscale, width // downscale))
        decode_map(work, vae.decoder, latent, enlarge=downscale > own)
    return int(work.peak)


def _check(vae: Any, downscale: int, values: Tensor | None = None, channels: int = 0) -> int:
    """Refuse what cannot be run; returns the autoencoder's own downscale."""
    blocks = {*vae.config.down_block_types, *vae.config.up_block_types}
    if blocks != {"DownEncoderBlock2D", "UpDecoderBlock2D"}:
        raise ConfigError(
            f"an autoencoder of {', '.join(sorted(blocks))} cannot be run in bands; allowed: DownEncoderBlock2D and "
            "UpDecoderBlock2D. Call its own encode and decode"
        )
    own = own_downscale(vae)
    if downscale not in (own, 2 * own):
        raise ConfigError(f"downscale is {downscale}; with this autoencoder it must be {own} or {2 * own}")
    if values is not None and (values.ndim != 4 or values.shape[1] != channels):
        raise ConfigError(f"expected values of shape (B, {channels}, height, width), got {tuple(values.shape)}")
    if values is not None and values.requires_grad and torch.is_grad_enabled():
        raise ConfigError(
            "d4k.autoencoder is for inference and gives no gradient; detach its input, or call the autoencoder's own "
            "encode and decode"
        )
    return own
