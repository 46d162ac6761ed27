"""Low-frequency guidance: against cosine transforms of scipy, a loop in numpy, and a flow that is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from torch import Tensor

from d4k.errors import ConfigError
from d4k.flow import velocity_from_clean
from d4k.sampling import CleanEstimate, SamplingSettings, sample_latents, starting_noise
from d4k.sampling.alignment import Alignment, low_pass

SIZES = [(16, 16), (17, 24), (23, 9), (1, 12), (13, 1)]
Array = NDArray[np.float64]


def latents(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def estimate(clean: Tensor, sigma: float = 0.8, step: int = 1) -> CleanEstimate:
    return CleanEstimate(step, 10, sigma, clean, clean)


def frequencies(height: int, width: int) -> Array:
    """Radial frequency of every coefficient of a cosine transform, as a share of the Nyquist frequency."""
    rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
    return np.sqrt(rows**2 + columns**2)


def spectrum(latent: Tensor) -> Array:
    found: Array = dctn(latent.double().numpy(), axes=(-2, -1), norm="ortho")
    return found


def filtered(latent: Array, cutoff: float) -> Array:
    """`low_pass` written out again: half the gain at the cutoff, 1 up to 3/4 and 0 from 5/4 of it."""
    where = frequencies(*latent.shape[-2:])
    fall = 0.5 + 0.5 * np.cos(np.pi * (where - 0.75 * cutoff) / (0.5 * cutoff))
    gain = np.where(where <= 0.75 * cutoff, 1, np.where(where >= 1.25 * cutoff, 0, fall))
    found: Array = idctn(gain * dctn(latent, axes=(-2, -1), norm="ortho"), axes=(-2, -1), norm="ortho")
    return found


def energy(difference: Array, where: NDArray[np.bool_]) -> float:
    """Share of the energy that lies at some frequencies."""
    return float((difference**2)[..., where].sum() / (difference**2).sum())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cutoff", [0.05, 0.4, 0.9])
def test_low_pass_is_a_raised_cosine_of_the_cosine_transform(size: tuple[int, int], cutoff: float) -> None:
    latent = latents(2, 3, *size)
    found = low_pass(latent, cutoff)
    assert (found.shape, found.dtype) == (latent.shape, torch.float32)
    np.testing.assert_allclose(found.numpy(), filtered(latent.double().numpy(), cutoff), atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.just(0.0) | st.floats(0.01, 1), st.floats(-3, 3), st.integers(0, 99))
def test_low_pass_is_linear_and_keeps_the_mean(
    height: int, width: int, cutoff: float, factor: float, seed: int
) -> None:
    one, other = latents(2, 1, 2, height, width, seed=seed)
    found = low_pass(one + factor * other, cutoff)
    torch.testing.assert_close(found, low_pass(one, cutoff) + factor * low_pass(other, cutoff), rtol=0, atol=1e-5)
    mean = one.mean((-2, -1)) if cutoff else torch.zeros(1, 2)
    torch.testing.assert_close(low_pass(one, cutoff).mean((-2, -1)), mean, rtol=0, atol=1e-5)


def wave(frequency: float, side: int = 60) -> Tensor:
    """A cosine whose frequency is a share of the Nyquist frequency."""
    return torch.cos(torch.pi * frequency * (torch.arange(side) + 0.5))


@pytest.mark.parametrize(("down", "across"), [(0.0, 0.5), (0.5, 0.0), (0.3, 0.4), (0.4, 0.3)])
def test_half_of_a_wave_at_the_cutoff_passes_in_every_direction(down: float, across: float) -> None:
    """Each of these waves has the frequency 0.5, also along a diagonal."""
    latent = (wave(down)[:, None] * wave(across))[None, None]
    torch.testing.assert_close(low_pass(latent, 0.5), latent / 2, rtol=0, atol=1e-5)
    torch.testing.assert_close(low_pass(latent, 0.67), latent, rtol=0, atol=1e-5)
    torch.testing.assert_close(low_pass(latent, 0.39), torch.zeros_like(latent), rtol=0, atol=1e-5)


def test_an_edge_does_not_bleed_into_the_opposite_one() -> None:
    """A bright left edge leaves the right one dark; with a periodic transform it would not."""
    latent = torch.zeros(1, 1, 32, 32)
    latent[..., :4] = 1
    found = low_pass(latent, 0.2)
    periodic = torch.fft.ifft2(torch.fft.fft2(latent) * (torch.fft.fftfreq(32).abs() < 0.1)).real
    assert periodic[..., -2:].abs().min() > 0.1
    assert found[..., -2:].abs().max() < 0.01
    torch.testing.assert_close(low_pass(latent.mT, 0.2), found.mT)


@pytest.mark.parametrize("options", [{"strength": 0, "cutoff": 0.4}, {"strength": 1, "cutoff": 0}])
def test_without_strength_or_low_frequencies_the_estimate_itself_comes_back(options: Any) -> None:
    guide = Alignment(latents(2, 4, 9, 8), restart=0.8, **options)
    for step in (1, 2):
        asked = estimate(latents(2, 4, 9, 8, seed=step), step=step)
        assert guide(asked) is asked.clean


def test_change_lies_below_the_cutoff_and_what_remains_of_the_difference_above() -> None:
    """Measured in the spectrum, at full strength, over two steps."""
    reference, cutoff = latents(1, 4, 31, 48), 0.4
    guide = Alignment(reference, restart=0.8, strength=1, cutoff=cutoff)
    where = frequencies(31, 48)
    for step in (1, 2):
        clean = latents(1, 4, 31, 48, seed=step)
        aligned = guide(estimate(clean, step=step))
        changed, left = spectrum(aligned - clean), spectrum(aligned - reference)
        assert energy(changed, where < 1.25 * cutoff) > 1 - 1e-9
        assert energy(left, where > 0.75 * cutoff) > 1 - 1e-9
        assert energy(changed, where < cutoff) > 0.9
        assert energy(left, where > cutoff) > 0.9


def test_two_steps_follow_the_formulas() -> None:
    """Direction, then acceleration, written out in numpy with weights that fall with sigma."""
    reference, cutoff = latents(2, 3, 14, 11), 0.5
    guide = Alignment(reference, restart=0.8, strength=0.7, cutoff=cutoff)
    before = None
    for step, sigma in enumerate((0.8, 0.5, 0.1), 1):
        clean, weight = latents(2, 3, 14, 11, seed=step), 0.7 ** (0.8 / sigma)
        target, expected = reference.double().numpy(), clean.double().numpy()
        expected = expected + weight * (filtered(target, cutoff) - filtered(expected, cutoff))
        if before is not None:
            changes = filtered(expected - before, cutoff)  # those of the reference are 0
            expected = expected + weight * (0 - changes)
        before = expected
        np.testing.assert_allclose(guide(estimate(clean, sigma, step)).numpy(), expected, atol=5e-6)


def test_weight_falls_with_sigma_from_the_strength_to_nothing() -> None:
    guide = Alignment(latents(1, 1, 2, 2), restart=0.6, strength=0.9, cutoff=0.4)
    assert [guide.weight(sigma) for sigma in (1.0, 0.6, 0.3, 0.2)] == pytest.approx([0.9, 0.9, 0.9**2, 0.9**3])
    assert guide.weight(1e-3) < 1e-20
    for strength in (0.0, 1.0):
        same = Alignment(latents(1, 1, 2, 2), restart=0.6, strength=strength, cutoff=0.4)
        assert {same.weight(sigma) for sigma in (1.0, 0.6, 0.1, 1e-9)} == {strength}


def integrated(guide: Alignment, start: Tensor, picture: Tensor, restart: float) -> Tensor:
    """A model that knows one picture, from `restart` on with diffusers' scheduler and a guide at every step."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(restart, restart / 6, 6).tolist())
    noisy = start
    for step, (timestep, sigma) in enumerate(zip(scheduler.timesteps, scheduler.sigmas[:-1].tolist(), strict=True), 1):
        velocity = (noisy - picture) / sigma
        clean = guide(CleanEstimate(step, 6, sigma, noisy, noisy - sigma * velocity))
        guided = velocity_from_clean(noisy, clean, torch.full((len(noisy),), sigma))
        noisy = scheduler.step(guided, timestep, noisy, return_dict=False)[0]
    return noisy


def test_stage_ends_at_the_low_frequencies_of_the_reference_and_the_high_ones_of_the_model() -> None:
    picture, reference = latents(1, 4, 20, 26), latents(1, 4, 20, 26, seed=1)
    start = 0.3 * reference + 0.7 * latents(1, 4, 20, 26, seed=2)
    guide = Alignment(reference, restart=0.7, strength=1, cutoff=0.4)
    found = spectrum(integrated(guide, start, picture, 0.7))
    where = frequencies(20, 26)
    low, high = where <= 0.3, where >= 0.5
    np.testing.assert_allclose(found[..., low], spectrum(reference)[..., low], atol=1e-5)
    np.testing.assert_allclose(found[..., high], spectrum(picture)[..., high], atol=1e-5)


def test_stage_returns_the_enlarged_picture_where_everything_is_low() -> None:
    picture, reference = latents(1, 4, 15, 10), latents(1, 4, 15, 10, seed=1)
    guide = Alignment(reference, restart=0.7, strength=1, cutoff=1)
    found = integrated(guide, latents(1, 4, 15, 10, seed=2), picture, 0.7)
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-5)


def test_more_strength_ends_nearer_to_the_reference() -> None:
    picture, reference, start = latents(3, 1, 4, 20, 20)
    distances = []
    for strength in (0, 0.25, 0.5, 0.75, 1):
        guide = Alignment(reference, restart=0.7, strength=strength, cutoff=0.4)
        found = integrated(guide, start, picture, 0.7)
        distances.append(low_pass(found - reference, 0.3).square().mean().item())
    assert all(later < earlier for earlier, later in pairwise(distances))


def test_rows_of_a_batch_do_not_touch() -> None:
    reference, first, second = latents(3, 3, 4, 12, 10)
    together = Alignment(reference, restart=0.8, strength=0.6, cutoff=0.4)
    both = [together(estimate(clean, 0.5, step)) for step, clean in enumerate((first, second), 1)]
    for row in range(3):
        alone = Alignment(reference[row : row + 1], restart=0.8, strength=0.6, cutoff=0.4)
        for step, clean in enumerate((first, second), 1):
            found = alone(estimate(clean[row : row + 1], 0.5, step))
            torch.testing.assert_close(found, both[step - 1][row : row + 1], rtol=0, atol=1e-6)


def test_a_stage_that_begins_again_gives_the_same() -> None:
    """The step before is forgotten at step 1, and neither input is written to."""
    reference, *cleans = latents(3, 1, 4, 8, 8)
    kept = [tensor.clone() for tensor in (reference, *cleans)]
    guide = Alignment(reference, restart=0.8, strength=0.6, cutoff=0.4)
    runs = [[guide(estimate(clean, 0.5, step)) for step, clean in enumerate(cleans, 1)] for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(kept, (reference, *cleans), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restart": 0.0}, "restart must be a number above 0 and at most 1"),
        ({"strength": 1.1}, "strength must be a number of at least 0 and at most 1"),
        ({"cutoff": -0.1}, "cutoff must be a number of at least 0 and at most 1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Alignment(latents(1, 1, 2, 2), **{"restart": 0.8, "strength": 0.5, "cutoff": 0.4, **options})


def test_reference_of_another_size_is_refused() -> None:
    guide = Alignment(latents(1, 4, 8, 8), restart=0.8, strength=0.5, cutoff=0.4)
    with pytest.raises(ConfigError, match=r"shape \(1, 4, 8, 8\), and the stage \(1, 4, 16, 8\)"):
        guide(estimate(latents(1, 4, 16, 8)))


@torch.no_grad()
@pytest.mark.parametrize(("strength", "same"), [(1.0, "reference"), (0.0, "plain")])
def test_a_stage_of_the_loop_is_held_or_left_alone(backbone: Any, strength: float, same: str) -> None:
    """With every frequency low, it ends at the enlarged picture; without strength no bit of the plain stage changes."""
    stage = SamplingSettings(width=16, height=12, steps=5, guidance=2.0, restart=0.8)
    noise = starting_noise(backbone, [0, 1], 16, 12)
    reference = latents(*noise.shape, seed=3)
    guide = Alignment(reference, restart=0.8, strength=strength, cutoff=1)
    plain, guided = (
        sample_latents(backbone, ["a", "b"], noise, stage, clean=reference, guide=chosen) for chosen in (None, guide)
    )
    assert not torch.allclose(plain, reference, atol=0.01)
    torch.testing.assert_close(guided, {"reference": reference, "plain": plain}[same], rtol=0, atol=1e-5)
    assert strength or torch.equal(guided, plain)
