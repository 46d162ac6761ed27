"""Rectified-flow maths: noise level, shift, velocity and clean, timestep density, weighting.

`noisy = (1 - sigma) * clean + sigma * noise` and `velocity = noise - clean`; sigma in [0, 1] everywhere.
Source: SD3, Esser et al. 2024, arXiv 2403.03206, sections 2, 3.1 and 5.3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from d4k import protocols
from d4k.errors import ConfigError

__all__ = [
    "Density",
    "Weighting",
    "clean_from_velocity",
    "per_sample",
    "resolution_shift",
    "sample_sigma",
    "shift_sigma",
    "sigma_weight",
    "velocity_from_clean",
]

Density: TypeAlias = protocols.Density
"""How training samples noise levels; see `sample_sigma`."""

Weighting: TypeAlias = protocols.Weighting
"""How the loss of a sample is weighted by its noise level; see `sigma_weight`."""


def per_sample(sigma: Tensor) -> Tensor:
    """(B,) to (B, 1, 1, 1), so that it multiplies latents.

    >>> per_sample(torch.ones(2)).shape
    torch.Size([2, 1, 1, 1])
    """
    return sigma.reshape(-1, 1, 1, 1)


def clean_from_velocity(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The clean latent that a velocity implies: `noisy - sigma * velocity`.

    Args:
        noisy: (B, C, h, w).
        velocity: (B, C, h, w).
        sigma: (B,) in [0, 1].

    Returns:
        (B, C, h, w).
    """
    return noisy - per_sample(sigma) * velocity


def velocity_from_clean(noisy: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """The velocity that a clean latent implies: `(noisy - clean) / sigma`; inverse of `clean_from_velocity`.

    Args:
        noisy: (B, C, h, w).
        clean: (B, C, h, w).
        sigma: (B,) in (0, 1].

    Returns:
        (B, C, h, w).
    """
    return (noisy - clean) / per_sample(sigma)


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1 for large images: `shift * sigma / (1 + (shift - 1) * sigma)`.

    Args:
        sigma: any shape, in [0, 1]; 0 and 1 stay where they are.
        shift: above 0; 1 changes nothing, SD3 uses 3 at 1024 pixels.

    Source: arXiv 2403.03206, equation 23.

    >>> shift_sigma(torch.tensor([0.0, 0.5, 1.0]), 3.0)
    tensor([0.0000, 0.7500, 1.0000])
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def sample_sigma(
    count: int,
    *,
    density: Density = "logit-normal",
    mean: float = 0.0,
    std: float = 1.0,
    mode_scale: float = 1.29,
    alpha: float = 2.0,
    beta: float = 4.0,
    shift: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample the noise levels of a training batch.

    Args:
        count: B.
        density: `uniform` on [0, 1]; `logit-normal`, the sigmoid of N(mean, std); `mode`, heavier in the middle;
            `beta`, the beta distribution.
        mean: of the logit-normal density.
        std: of the logit-normal density.
        mode_scale: s of the mode density, in [-1, 2 / (pi - 2)].
        alpha: first parameter of the beta density, above 0.
        beta: second parameter of the beta density, above 0; UltraHR trains with 2 and 4, which prefers low levels.
        shift: applied afterwards, see `shift_sigma`.
        generator: on the CPU.

    Returns:
        (count,) float32 on the CPU, in [0, 1].

    Raises:
        ConfigError: the density is unknown.

    Source: arXiv 2403.03206, section 3.1; the beta density with 2 and 4: UltraHR-100K, arXiv 2510.20661.
    """
    if density == "logit-normal":
        sigma = torch.sigmoid(mean + std * torch.randn(count, generator=generator))
    elif density in ("uniform", "mode"):
        sigma = torch.rand(count, generator=generator)
        if density == "mode":
            sigma = 1 - sigma - mode_scale * (torch.cos(math.pi / 2 * sigma) ** 2 - 1 + sigma)
    elif density == "beta":
        seed = int(torch.randint(2**62, (), generator=generator))
        sigma = torch.from_numpy(np.random.default_rng(seed).beta(alpha, beta, count)).float()
    else:
        raise ConfigError(f"unknown density '{density}'; allowed: {', '.join(get_args(Density))}")
    return shift_sigma(sigma, shift)


def sigma_weight(sigma: Tensor, weighting: Weighting) -> Tensor:
    """Weight of a sample's loss by its noise level.

    Args:
        sigma: (B,) in [0, 1].
        weighting: `none`, 1; `sigma-sqrt`, 1 / sigma^2; `cosmap`, 2 / (pi * (1 - 2 sigma + 2 sigma^2)).

    Returns:
        (B,), finite: sigma is taken as at least 1e-3 in `sigma-sqrt`.

    Raises:
        ConfigError: the weighting is unknown.

    Source: arXiv 2403.03206, section 3.1.

    >>> sigma_weight(torch.tensor([0.5]), "sigma-sqrt")
    tensor([4.])
    """
    if weighting == "none":
        return torch.ones_like(sigma)
    if weighting == "sigma-sqrt":
        return sigma.clamp(min=1e-3) ** -2
    if weighting == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))
    raise ConfigError(f"unknown weighting '{weighting}'; allowed: {', '.join(get_args(Weighting))}")


def resolution_shift(config: Mapping[str, Any], tokens: int, *, max_shift: float = 1.15) -> float:
    """The `mu` of dynamic shifting: a straight line through (base tokens, base shift) and (max tokens, max shift).

    Args:
        config: of a diffusers scheduler; absent keys take the published values.
        tokens: image tokens.
        max_shift: at the largest number of tokens, where `config` does not say; SD3.5 uses 1.16, FLUX.1 1.15.

    Returns:
        The logarithm of the shift.

    Source: FLUX.1, https://github.com/black-forest-labs/flux.

    >>> resolution_shift({}, 256)
    0.5
    """
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
    return float(base + (top - base) * (tokens - low) / (high - low))
