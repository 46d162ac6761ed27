from __future__ import annotations

import re

import numpy as np
import pytest
import pywt
import torch

from d4k import ConfigError, FlowStep, create
from d4k.flow import per_sample
from d4k.testing import check_loss
from d4k_wavelet.huber import WaveletHuberLoss
from d4k_wavelet.loss import capped_snr


def example(sigma=(0.05, 0.5, 0.9)):
    generator = torch.Generator().manual_seed(0)
    clean, noise, velocity = (torch.randn(3, 4, 12, 10, generator=generator) for _ in range(3))
    return velocity, FlowStep(clean, noise, torch.tensor(sigma))


@pytest.mark.parametrize("options", [{}, {"levels": 2, "weights": "octave", "wavelet": "db2"}], ids=str)
def test_it_keeps_the_contract_of_a_loss(options):
    """d4k's own contract check passes; by its registered name."""
    check_loss(create("loss", "wavelet-huber", **options))


def test_it_is_the_huber_penalty_of_the_coefficients_of_pywavelets_times_the_capped_ratio():
    """Both clean latents transformed by themselves, and compared in float64."""
    velocity, step = example()
    sigma = step.sigma.double().numpy()
    estimate = (step.noisy - per_sample(step.sigma) * velocity).double().numpy()
    ours, theirs = (pywt.dwt2(x, "haar", mode="zero") for x in (estimate, step.clean.double().numpy()))
    error = np.abs(np.stack([ours[0], *ours[1]]) - np.stack([theirs[0], *theirs[1]]))
    penalty = np.where(error <= 0.1, error**2, 2 * 0.1 * error - 0.1**2).mean((0, 2, 3, 4))
    ratio = np.minimum(((1 - sigma) / sigma) ** 2, 5)
    assert (error[:, 0] <= 0.1).mean() > 0.05  # both branches are met
    assert (error[:, 2] <= 0.1).mean() < 0.95
    np.testing.assert_allclose(WaveletHuberLoss()(velocity, step), ratio * penalty, rtol=2e-4)


def test_below_delta_it_is_weighted_mean_squared_error():
    """A delta that no error reaches leaves min(SNR, cap) * sigma^2 * MSE of the velocity."""
    velocity, step = example()
    plain = step.sigma**2 * (velocity - step.velocity).square().mean((1, 2, 3))
    expected = capped_snr(step.sigma, 2.0) * plain
    torch.testing.assert_close(WaveletHuberLoss(delta=1e3, snr_cap=2.0)(velocity, step), expected, rtol=1e-5, atol=0)


def test_a_large_error_pulls_no_harder_than_its_four_coefficients_may():
    """An outlier of a hundred among ones: four times their gradient, where squared error would make it a hundred."""
    clean = torch.zeros(1, 1, 4, 4)
    step = FlowStep(clean, clean, torch.tensor([0.5]))
    velocity = torch.ones(1, 1, 4, 4)
    velocity[..., 0, 0] = 100.0
    velocity.requires_grad_()
    WaveletHuberLoss()(velocity, step).sum().backward()
    gradient = velocity.grad.abs()
    assert (gradient.max() / gradient[0, 0, 2, 2]).item() == pytest.approx(4)


def test_the_ratio_falls_with_the_noise_level_below_its_cap():
    """From the cap at no noise, through 1 at a half, to 0 at nothing but noise; finite all the way."""
    sigma = torch.linspace(0, 1, 101, dtype=torch.float64)
    for cap in (0.5, 1.0, 5.0, 100.0):
        ratio = capped_snr(sigma, cap)
        level = sigma[1:].numpy()
        expected = np.minimum((1 / level - 1) ** 2, cap)
        np.testing.assert_allclose(ratio[1:], expected, rtol=1e-9)
        assert (ratio[0], ratio[-1]) == (cap, 0)
        assert (ratio.diff() <= 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delta": 0}, "delta must be a number above 0, got 0"),
        ({"snr_cap": -1}, "snr_cap must be a number above 0, got -1"),
        ({"levels": 0}, "levels must be a whole number of at least 1, got 0"),
        ({"weights": {"LX": 1}}, "weights has no subband 'LX'"),
        ({"mode": "wrap"}, "mode must be one of zero, periodization, symmetric, reflect, got 'wrap'"),
    ],
)
def test_bad_options_are_named(options, words):
    """When the loss is made, not at the first step."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        create("loss", "wavelet-huber", **options)
