"""Pixels to latents and back through any diffusers `AutoencoderKL`, scaled as its configuration says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["decode", "encode"]


def encode(vae: Any, pixels: Tensor) -> Tensor:
    """The mode of the posterior, shifted and scaled to about unit variance.

    Args:
        vae: a diffusers `AutoencoderKL`.
        pixels: (B, 3, H, W) in [-1, 1], any device and dtype.

    Returns:
        (B, C, h, w): `(mode - shift_factor) * scaling_factor`, on the autoencoder's device, in its dtype.
    """
    with torch.no_grad():
        mode = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
    latent: Tensor = (mode - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    return latent


def decode(vae: Any, latent: Tensor) -> Tensor:
    """Inverse of `encode`, up to what the autoencoder loses.

    Args:
        vae: a diffusers `AutoencoderKL`.
        latent: (B, C, h, w), any device and dtype.

    Returns:
        (B, 3, H, W), about in [-1, 1].
    """
    plain = latent.to(vae.device, vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
    with torch.no_grad():
        pixels: Tensor = vae.decode(plain, return_dict=False)[0]
    return pixels
