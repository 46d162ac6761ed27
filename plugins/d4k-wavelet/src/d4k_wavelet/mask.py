"""The masked loss of Latent Wavelet Diffusion: where there is no detail, high noise levels are not trained."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from attrs import Attribute, field, frozen
from torch import Tensor

from d4k import FlowStep
from d4k.flow import per_sample
from d4k_wavelet.checks import is_discrete
from d4k_wavelet.loss import velocity_error
from d4k_wavelet.transform import dwt2

__all__ = ["WaveletMaskLoss", "energy_map"]


def energy_map(latent: Tensor, wavelet: str = "haar") -> Tensor:
    """Where a latent has detail: the energy of LH, HL and HH at each place, from 0 at the least to 1 at the most.

    Each coefficient stands for the two rows and columns it was made of. A latent of equal energy everywhere has no
    place that stands out: its map is 1.

    Args:
        latent: (B, C, h, w), any float dtype.
        wavelet: a discrete wavelet of PyWavelets; what lies beyond the border is continued periodically.

    Returns:
        (B, 1, h, w) float32, normalised sample by sample.

    >>> energy_map(torch.tensor([[[[1.0, -1.0, 2.0, 2.0], [1.0, -1.0, 2.0, 2.0]]]]))[0, 0]
    tensor([[1., 1., 0., 0.],
            [1., 1., 0., 0.]])
    """
    bands = dwt2(latent.float(), wavelet, "periodization")
    energy = torch.cat([bands.LH, bands.HL, bands.HH], 1).square().sum(1, keepdim=True)
    rows, columns = latent.shape[-2:]
    energy = F.interpolate(energy, scale_factor=2, mode="nearest")[..., :rows, :columns]
    low, high = energy.amin((1, 2, 3), keepdim=True), energy.amax((1, 2, 3), keepdim=True)
    flat = high <= low
    return ((energy - low) / (high - low).masked_fill(flat, 1)).masked_fill(flat, 1)


def _is_share(_: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be a number from 0 to 1, got {value!r}")


@frozen(kw_only=True)
class WaveletMaskLoss:
    """Flow matching on the places of a latent whose detail is worth training at the noise level of the sample.

    The paper masks place by place: M = 1 where T (A + l) >= t, and 0 elsewhere. A is the `energy_map` of the noisy
    latent, t the timestep and T the number of timesteps. d4k reads t / T as the noise level sigma, so that M = 1 where
    A + l >= sigma. Hence every place is trained up to sigma = l, the place of most energy always, and the more noise
    there is, the more of the smooth places are left out. l is the share of the noise levels that no place goes without.

    The loss is the mean of M (v_hat - v)^2 over all elements, also those left out: a sample of much noise counts less.
    The mask has no gradient, since the noisy latent does not depend on the model.

    Args:
        floor: l, from 0 to 1; 1 trains every place, which is plain mean squared error.
        wavelet: a discrete wavelet of PyWavelets, of which one level is taken.

    Raises:
        ValueError: an option is out of range; the sentence names what is allowed.

    Source: Sigillo et al., "Latent Wavelet Diffusion", arXiv 2506.00433.
    """

    floor: float = field(default=0.3, validator=_is_share)
    wavelet: str = field(default="haar", validator=is_discrete)

    def mask(self, step: FlowStep) -> Tensor:
        """Which places of a step are trained, (B, 1, h, w) float32 of 0 and 1."""
        return (energy_map(step.noisy, self.wavelet) + self.floor >= per_sample(step.sigma).float()).float()

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        """Compare a predicted velocity with a step.

        Args:
            velocity: predicted, (B, C, h, w), any float dtype.
            step: what the model was shown.

        Returns:
            (B,) float32.

        Raises:
            ValueError: the shapes differ.
        """
        return (velocity_error(velocity, step).square() * self.mask(step)).mean((1, 2, 3))
