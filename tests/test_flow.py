"""Rectified-flow maths against NumPy, SciPy, diffusers' scheduler and algebra."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from d4k import FlowStep
from d4k.errors import ConfigError
from d4k.flow import (
    clean_from_velocity,
    per_sample,
    resolution_shift,
    sample_sigma,
    shift_sigma,
    sigma_weight,
    velocity_from_clean,
)

sigmas = st.floats(0.0, 1.0)
shifts = st.floats(0.1, 10.0)
COUNT = 20_000
MAX_SCALE = 2 / (math.pi - 2)


def latents(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clean, noise and sigma of three samples with different sigmas."""
    generator = torch.Generator().manual_seed(seed)
    clean, noise = (torch.randn(3, 4, 5, 6, generator=generator, dtype=dtype) for _ in range(2))
    return clean, noise, torch.tensor([0.25, 0.5, 1.0], dtype=dtype)


def test_per_sample_multiplies_whole_samples() -> None:
    """(B,) becomes (B, 1, 1, 1)."""
    clean, _, sigma = latents()
    assert per_sample(sigma).shape == (3, 1, 1, 1)
    np.testing.assert_array_equal(per_sample(sigma) * clean, np.einsum("b,bchw->bchw", sigma, clean))


def test_step_mixes_and_points_from_clean_to_noise() -> None:
    """`noisy = (1 - sigma) clean + sigma noise` sample by sample, `velocity = noise - clean`."""
    clean, noise, sigma = latents()
    step = FlowStep(clean, noise, sigma)
    for i in range(3):
        expected = (1 - sigma[i].item()) * clean[i].numpy() + sigma[i].item() * noise[i].numpy()
        np.testing.assert_allclose(step.noisy[i], expected, rtol=1e-12)
    np.testing.assert_array_equal(step.velocity, noise.numpy() - clean.numpy())


def test_step_ends_at_clean_and_at_noise() -> None:
    """Sigma 0 is the picture, sigma 1 is noise, exactly."""
    clean, noise, _ = latents()
    assert torch.equal(FlowStep(clean, noise, torch.zeros(3)).noisy, clean)
    assert torch.equal(FlowStep(clean, noise, torch.ones(3)).noisy, noise)


def test_step_keeps_a_noisy_latent_that_is_given() -> None:
    """A caller who has mixed already is taken at their word."""
    clean, noise, sigma = latents()
    assert FlowStep(clean, noise, sigma, clean).noisy is clean


def test_step_noises_as_the_scheduler_of_diffusers_does() -> None:
    """The convention is that of the models' own scheduler."""
    clean, noise, _ = latents(dtype=torch.float32)
    scheduler = FlowMatchEulerDiscreteScheduler()
    timesteps = scheduler.timesteps[torch.tensor([10, 500, 900])]
    expected = scheduler.scale_noise(clean, timesteps, noise)
    torch.testing.assert_close(FlowStep(clean, noise, timesteps / 1000).noisy, expected)


def test_velocity_of_the_step_leads_back_to_its_clean_latent() -> None:
    """`clean = noisy - sigma velocity` holds at every sigma."""
    clean, noise, sigma = latents()
    step = FlowStep(clean, noise, sigma)
    torch.testing.assert_close(clean_from_velocity(step.noisy, step.velocity, sigma), clean)
    torch.testing.assert_close(velocity_from_clean(step.noisy, clean, sigma), step.velocity)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4), st.integers(0, 2**31))
def test_velocity_and_clean_are_inverse(levels: list[float], seed: int) -> None:
    """Any velocity survives the way to a clean latent and back."""
    sigma = torch.tensor(levels, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    noisy, velocity = (torch.randn(len(levels), 2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    there = clean_from_velocity(noisy, velocity, sigma)
    torch.testing.assert_close(velocity_from_clean(noisy, there, sigma), velocity, rtol=1e-9, atol=1e-11)


@given(shifts)
def test_shift_fixes_0_and_1_and_rises(shift: float) -> None:
    """A shift maps [0, 1] onto itself, in order."""
    moved = shift_sigma(torch.linspace(0, 1, 101, dtype=torch.float64), shift)
    assert moved[0] == 0
    assert moved[-1] == pytest.approx(1, abs=1e-12)
    assert (moved.diff() > 0).all()


@given(sigmas, shifts, shifts)
def test_shifts_compose_and_invert(sigma: float, one: float, other: float) -> None:
    """Shifting twice is shifting by the product; 1 / shift undoes it: the odds of sigma are multiplied."""
    level = torch.tensor([sigma], dtype=torch.float64)
    torch.testing.assert_close(shift_sigma(shift_sigma(level, one), other), shift_sigma(level, one * other))
    torch.testing.assert_close(shift_sigma(shift_sigma(level, one), 1 / one), level, rtol=1e-9, atol=1e-12)


@given(st.floats(0.01, 0.99), shifts)
def test_shift_multiplies_the_odds(sigma: float, shift: float) -> None:
    """The defining property: sigma' / (1 - sigma') = shift * sigma / (1 - sigma)."""
    moved = shift_sigma(torch.tensor(sigma, dtype=torch.float64), shift).item()
    assert moved / (1 - moved) == pytest.approx(shift * sigma / (1 - sigma), rel=1e-9)


def test_shift_equals_that_of_the_scheduler_of_diffusers() -> None:
    """SD3's shift of 3, as its own scheduler applies it."""
    plain, shifted = FlowMatchEulerDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(shift=3.0)
    torch.testing.assert_close(shift_sigma(plain.sigmas, 3.0), shifted.sigmas)


def logit_normal_cdf(mean: float, std: float) -> Callable[[Any], Any]:
    """P(sigmoid(N(mean, std)) <= x)."""
    return lambda x: stats.norm.cdf((np.log(x) - np.log1p(-x) - mean) / std)


def mode_cdf(scale: float) -> Callable[[Any], Any]:
    """P(f(u) <= x) for u uniform, with f of equation 20: f falls, so this is 1 - u where f(u) = x."""
    u = np.linspace(0, 1, 10_001)
    values = 1 - u - scale * (np.cos(np.pi / 2 * u) ** 2 - 1 + u)
    return lambda x: 1 - np.interp(x, values[::-1], u[::-1])


@pytest.mark.parametrize(
    ("options", "cdf"),
    [
        ({"density": "uniform"}, stats.uniform.cdf),
        ({}, logit_normal_cdf(0, 1)),
        ({"density": "logit-normal", "mean": 0.5, "std": 0.6}, logit_normal_cdf(0.5, 0.6)),
        ({"density": "mode"}, mode_cdf(1.29)),
        ({"density": "mode", "mode_scale": -0.8}, mode_cdf(-0.8)),
        ({"density": "mode", "mode_scale": 0.0}, stats.uniform.cdf),
        ({"density": "beta"}, stats.beta(2, 4).cdf),
        ({"density": "beta", "alpha": 0.7, "beta": 1.3}, stats.beta(0.7, 1.3).cdf),
    ],
)
def test_drawn_sigmas_follow_their_density(options: dict[str, Any], cdf: Callable[[Any], Any]) -> None:
    """Kolmogorov-Smirnov against the analytic distribution function, with a fixed seed."""
    drawn = sample_sigma(COUNT, generator=torch.Generator().manual_seed(0), **options)
    assert stats.kstest(drawn.double().numpy(), cdf).pvalue > 0.05


def test_distribution_functions_of_this_test_tell_densities_apart() -> None:
    """The check above has the power to fail: uniform numbers are not logit-normal, a wrong mean is seen."""
    drawn = sample_sigma(COUNT, density="logit-normal", mean=0.05, generator=torch.Generator().manual_seed(0))
    assert stats.kstest(drawn.double().numpy(), logit_normal_cdf(0, 1)).pvalue < 1e-3


@given(st.floats(-1.0, MAX_SCALE), st.integers(0, 1000))
def test_mode_density_stays_in_range_for_every_allowed_scale(scale: float, seed: int) -> None:
    """Within [-1, 2 / (pi - 2)] the map is monotone, so it never leaves [0, 1]."""
    drawn = sample_sigma(64, density="mode", mode_scale=scale, generator=torch.Generator().manual_seed(seed))
    assert drawn.min() >= -1e-6
    assert drawn.max() <= 1 + 1e-6


def test_mode_density_is_heavier_in_the_middle() -> None:
    """A positive scale favours sigma near a half, a negative one the ends."""
    share = []
    for scale in (1.29, 0.0, -0.9):
        drawn = sample_sigma(COUNT, density="mode", mode_scale=scale, generator=torch.Generator().manual_seed(1))
        share.append(((drawn - 0.5).abs() < 0.2).float().mean().item())
    assert share == sorted(share, reverse=True)
    assert share[1] == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("density", ["uniform", "logit-normal", "mode", "beta"])
def test_drawn_sigmas_are_float32_in_range_and_repeatable(density: Any) -> None:
    """Equal generators give equal numbers; the generator is the only source of chance."""
    one, two = (sample_sigma(100, density=density, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert (one.shape, one.dtype, one.device.type) == ((100,), torch.float32, "cpu")
    assert one.min() >= 0
    assert one.max() <= 1


@pytest.mark.parametrize("density", ["uniform", "logit-normal", "mode", "beta"])
def test_shift_is_applied_to_drawn_sigmas(density: Any) -> None:
    """Drawing with a shift is drawing, then shifting."""
    plain, shifted = (
        sample_sigma(50, density=density, shift=shift, generator=torch.Generator().manual_seed(5))
        for shift in (1.0, 3.0)
    )
    torch.testing.assert_close(shifted, shift_sigma(plain, 3.0))
    assert shifted.mean() > plain.mean() + 0.1


def test_weights_have_their_published_values() -> None:
    """`none` is 1, `sigma-sqrt` 1 / sigma^2, `cosmap` 2 / (pi (1 - 2 sigma + 2 sigma^2))."""
    sigma = np.linspace(0.01, 1, 50)
    level = torch.from_numpy(sigma)
    np.testing.assert_array_equal(sigma_weight(level, "none"), np.ones(50))
    np.testing.assert_allclose(sigma_weight(level, "sigma-sqrt"), 1 / sigma**2, rtol=1e-12)
    np.testing.assert_allclose(sigma_weight(level, "cosmap"), 2 / (np.pi * (1 - 2 * sigma + 2 * sigma**2)), rtol=1e-12)


def test_cosmap_weight_is_a_probability_density() -> None:
    """The weighting is the density of the cosine map, so it integrates to 1."""
    area, _ = integrate.quad(lambda x: sigma_weight(torch.tensor(x, dtype=torch.float64), "cosmap").item(), 0, 1)
    assert area == pytest.approx(1, abs=1e-9)


def test_sigma_sqrt_weight_is_finite_at_zero() -> None:
    """Sigma counts as at least a thousandth."""
    assert sigma_weight(torch.tensor([0.0, 1e-3, 2e-3]), "sigma-sqrt").tolist() == pytest.approx([1e6, 1e6, 2.5e5])


def test_unknown_density_and_weighting_say_what_is_allowed() -> None:
    """Each message names what it got and every choice."""
    wrong: Any = "cosine"
    with pytest.raises(ConfigError, match="unknown density 'cosine'; allowed: uniform, logit-normal, mode"):
        sample_sigma(1, density=wrong)
    with pytest.raises(ConfigError, match="unknown weighting 'cosine'; allowed: none, sigma-sqrt, cosmap"):
        sigma_weight(torch.ones(1), wrong)


def test_resolution_shift_passes_through_both_published_points() -> None:
    """256 tokens give 0.5, 4096 give 1.15 (SD3.5: 1.16), in between a straight line."""
    assert [resolution_shift({}, tokens) for tokens in (256, 4096)] == pytest.approx([0.5, 1.15])
    assert resolution_shift({}, 4096, max_shift=1.16) == pytest.approx(1.16)
    assert resolution_shift({}, (256 + 4096) // 2) == pytest.approx((0.5 + 1.15) / 2)


@given(st.integers(1, 20_000))
def test_resolution_shift_follows_the_configuration(tokens: int) -> None:
    """Every key of the scheduler's configuration counts; outside the two points the line goes on."""
    config = {"base_image_seq_len": 100, "max_image_seq_len": 900, "base_shift": 0.2, "max_shift": 1.0}
    assert resolution_shift(config, tokens, max_shift=9.0) == pytest.approx(0.2 + 0.8 * (tokens - 100) / 800)
