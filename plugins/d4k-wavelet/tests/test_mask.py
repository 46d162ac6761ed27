from __future__ import annotations

import re

import numpy as np
import pytest
import pywt
import torch

from d4k import ConfigError, FlowStep, create
from d4k.testing import check_loss
from d4k_wavelet.mask import WaveletMaskLoss, energy_map


def example(height=12, width=10, sigma=(0.2, 0.5, 0.95), seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean, noise, velocity = (torch.randn(3, 4, height, width, generator=generator) for _ in range(3))
    return velocity, FlowStep(clean, noise, torch.tensor(sigma))


def map_by_pywavelets(latent, wavelet):
    """The energy of the details of PyWavelets, channels added up, each coefficient over the pixels it stands for."""
    _, details = pywt.dwt2(latent.double().numpy(), wavelet, mode="periodization")
    energy = sum(band**2 for band in details).sum(1)
    energy = np.kron(energy, np.ones((1, 2, 2)))[:, : latent.shape[2], : latent.shape[3]]
    low, high = energy.min((1, 2), keepdims=True), energy.max((1, 2), keepdims=True)
    return ((energy - low) / (high - low))[:, None]


@pytest.mark.parametrize("options", [{}, {"wavelet": "bior4.4"}, {"floor": 0.0}, {"floor": 1.0}], ids=str)
def test_it_keeps_the_contract_of_a_loss(options):
    """d4k's own contract check passes; by its registered name."""
    check_loss(create("loss", "wavelet-mask", **options))


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
@pytest.mark.parametrize("size", [(12, 10), (13, 9)])
def test_the_map_is_made_of_the_details_of_pywavelets(wavelet, size):
    """From 0 to 1 in every sample, also for odd sides."""
    latent = example(*size)[0]
    ours = energy_map(latent, wavelet)
    np.testing.assert_allclose(ours, map_by_pywavelets(latent, wavelet), atol=1e-5)
    assert (ours.amin((1, 2, 3)).tolist(), ours.amax((1, 2, 3)).tolist()) == ([0.0] * 3, [1.0] * 3)


@pytest.mark.parametrize("floor", [0.0, 0.3, 0.7])
def test_it_is_the_published_formula_place_by_place(floor):
    """The mean of M (v_hat - v)^2 with M = 1 where T (A + l) >= t, t counted in T = 1000 timesteps."""
    velocity, step = example()
    energy = map_by_pywavelets(step.noisy, "haar")
    timestep = 1000 * step.sigma.numpy().reshape(-1, 1, 1, 1)
    mask = np.where(1000 * (energy + floor) >= timestep, 1, 0)
    expected = (mask * (velocity - step.velocity).double().numpy() ** 2).mean((1, 2, 3))
    assert 0 < mask[1:].mean() < 1
    np.testing.assert_allclose(WaveletMaskLoss(floor=floor)(velocity, step), expected, rtol=1e-5)


def test_up_to_the_floor_every_place_is_trained_and_with_more_noise_ever_fewer():
    """The same noisy latent at rising noise levels: all of it, then less and less, and never nothing."""
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(6, 1, 1, 1)
    sigma = torch.tensor([0.0, 0.3, 0.45, 0.6, 0.8, 1.0])
    shares = WaveletMaskLoss().mask(FlowStep(noisy, noisy, sigma, noisy)).mean((1, 2, 3)).tolist()
    assert shares[:2] == [1.0, 1.0]
    assert shares[1:] == sorted(shares[1:], reverse=True)
    assert 1 > shares[2] > shares[-1] > 0


def test_a_smooth_half_is_left_out_at_high_noise_levels():
    """An error in the smooth half costs nothing there, one in the half with detail all."""
    latent = torch.zeros(2, 1, 8, 8)
    latent[..., :4] = torch.tensor([1.0, -1.0]).repeat(2)
    step = FlowStep(torch.zeros_like(latent), torch.zeros_like(latent), torch.tensor([0.2, 0.9]), latent)
    right, left = torch.zeros_like(latent), torch.zeros_like(latent)
    right[..., 4:], left[..., :4] = 1.0, 1.0
    assert WaveletMaskLoss()(right, step).tolist() == [0.5, 0.0]
    assert WaveletMaskLoss()(left, step).tolist() == [0.5, 0.5]


def test_a_latent_of_equal_energy_everywhere_is_trained_everywhere():
    """No place stands out, so none is left out: no division by zero, and no step that trains nothing."""
    flat = torch.full((1, 2, 6, 6), 3.0)
    step = FlowStep(flat, flat, torch.tensor([1.0]), flat)
    assert WaveletMaskLoss().mask(step).min() == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"floor": -0.1}, "floor must be a number from 0 to 1, got -0.1"),
        ({"floor": 2}, "floor must be a number from 0 to 1, got 2"),
        ({"floor": True}, "floor must be a number from 0 to 1, got True"),
        ({"wavelet": "harr"}, "got 'harr'; did you mean 'haar'?"),
    ],
)
def test_bad_options_are_named(options, words):
    """Each is one sentence."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        create("loss", "wavelet-mask", **options)


def test_shapes_must_be_equal():
    """A velocity that would broadcast is refused."""
    velocity, step = example()
    with pytest.raises(ValueError, match="they must be equal"):
        WaveletMaskLoss()(velocity[:, :1], step)
