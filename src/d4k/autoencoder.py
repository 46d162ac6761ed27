"""Pixels to latents and back through any diffusers `AutoencoderKL`, scaled as its configuration says."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["decode", "encode"]


def encode(vae: Any, pixels: Tensor, *, downscale: int, memory_gb: float | None = None) -> Tensor:  # noqa: ARG001
    """The mode of the posterior, shifted and scaled to about unit variance.

    Args:
        vae: a diffusers `AutoencoderKL`.
        pixels: (B, 3, H, W) in [-1, 1], any device and dtype.
        downscale: pixels a latent row stands for: what the autoencoder was made for, or twice that.
        memory_gb: what may be used beside the weights; None measures what is free.

    Returns:
        (B, C, h, w): `(mode - shift_factor) * scaling_factor`, on the autoencoder's device, in its dtype.
    """
    own = 2 ** (len(vae.config.block_out_channels) - 1)
    conv = vae.encoder.conv_in
    stride = conv.stride
    with torch.no_grad():
        conv.stride = (downscale // own,) * 2
        mode = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
        conv.stride = stride
    latent: Tensor = (mode - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return latent


def decode(vae: Any, latent: Tensor, *, downscale: int, memory_gb: float | None = None) -> Tensor:  # noqa: ARG001
    """Inverse of `encode`, up to what the autoencoder loses.

    Args:
        vae: a diffusers `AutoencoderKL`.
        latent: (B, C, h, w), any device and dtype.
        downscale: pixels a latent row stands for.
        memory_gb: what may be used beside the weights; None measures what is free.

    Returns:
        (B, 3, H, W), about in [-1, 1].
    """
    own = 2 ** (len(vae.config.block_out_channels) - 1)
    plain = latent.to(vae.device, vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)

    def enlarge(module: Any, inputs: tuple[Tensor]) -> Tensor:  # noqa: ARG001
        return F.interpolate(inputs[0], scale_factor=float(downscale // own), mode="nearest")

    handle = vae.decoder.conv_out.register_forward_pre_hook(enlarge)
    with torch.no_grad():
        pixels: Tensor = vae.decode(plain, return_dict=False)[0]
    handle.remove()
    return pixels
