from __future__ import annotations

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d4k import ConfigError, FlowStep, create
from d4k.testing import check_loss
from d4k_wavelet.loss import WaveletLoss, octave_weights

NAMES = ["LL", "LH", "HL", "HH"]


def example(height=12, width=10, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean, noise, velocity = (torch.randn(3, 4, height, width, generator=generator).to(dtype) for _ in range(3))
    return velocity, FlowStep(clean, noise, torch.tensor([0.2, 0.5, 1.0]))


def quiet(**options):
    with warnings.catch_warnings(action="ignore"):
        return WaveletLoss(**options)


def mse(velocity, step):
    return (velocity - step.velocity).square().mean((1, 2, 3))


OPTIONS = [
    {},
    {"levels": 1, "wavelet": "bior4.4", "mode": "symmetric"},
    {"levels": 3, "wavelet": "db3", "mode": "periodization", "target": "velocity"},
    {"penalty": "l1", "mode": "reflect"},
    {"penalty": "huber", "delta": 0.1, "weights": "unit"},
    {"by_sigma": "min-snr", "snr_cap": 2.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_keeps_the_contract_of_a_loss(options):
    """d4k's own contract check passes."""
    check_loss(WaveletLoss(**options))


@given(
    height=st.integers(2, 20),
    width=st.integers(2, 20),
    levels=st.integers(1, 3),
    wavelet=st.sampled_from(["haar", "db1", "db2", "db7", "sym4", "coif2"]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None)
def test_unit_weights_are_plain_flow_matching(height, width, levels, wavelet, seed):
    """The theorem: sigma^2 * MSE for target clean, MSE for target velocity, for every size and level."""
    velocity, step = example(height, width, seed=seed)
    plain = mse(velocity, step)
    for target, expected in {"clean": step.sigma**2 * plain, "velocity": plain}.items():
        loss = quiet(wavelet=wavelet, levels=levels, weights="unit", target=target)
        torch.testing.assert_close(loss(velocity, step), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("penalty", ["l2", "l1", "huber"])
@pytest.mark.parametrize("target", ["clean", "velocity"])
@pytest.mark.parametrize(("wavelet", "mode"), [("haar", "zero"), ("db2", "symmetric"), ("bior2.2", "reflect")])
def test_it_is_the_weighted_sum_over_the_coefficients_of_pywavelets(wavelet, mode, target, penalty):
    """Prediction and target transformed one by one with PyWavelets and compared subband by subband, in float64."""
    weights = [{"LH": 2.0, "HL": 3.0, "HH": 0.0}, {"LL": 0.25, "LH": 1.0, "HL": 5.0, "HH": 7.0}]
    velocity, step = example(21, 26)
    delta = 0.4
    loss = WaveletLoss(
        wavelet=wavelet, mode=mode, levels=2, weights=weights, target=target, penalty=penalty, delta=delta
    )
    predicted, truth = velocity.double().numpy(), step.velocity.double().numpy()
    if target == "clean":
        noisy, sigma = step.noisy.double().numpy(), step.sigma.double().numpy().reshape(-1, 1, 1, 1)
        predicted, truth = noisy - sigma * predicted, step.clean.double().numpy()
    ours, theirs = (pywt.wavedec2(x, wavelet, mode=mode, level=2) for x in (predicted, truth))
    total = np.zeros(3)
    for level, index in ((weights[1], 1), (weights[0], 2)):
        bands = zip(NAMES[1:], ours[index], theirs[index], strict=True)
        for name, a, b in [("LL", ours[0], theirs[0])] * (index == 1) + list(bands):
            error = np.abs(a - b)
            cost = {
                "l2": error**2,
                "l1": error,
                "huber": np.where(error <= delta, error**2, 2 * delta * error - delta**2),
            }[penalty]
            total += level[name] * cost.sum((1, 2, 3))
    np.testing.assert_allclose(loss(velocity, step), total / truth[0].size, rtol=2e-5)


def test_the_default_weighs_fine_detail_above_coarse():
    """One error energy, four places: the finest costs most, LL least."""
    loss = WaveletLoss(target="velocity")
    size = 8
    clean = torch.zeros(1, 1, size, size)
    step = FlowStep(clean, clean, torch.ones(1))
    stripes = [torch.tensor([1.0, -1.0]).repeat(4), torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(2), torch.ones(size)]
    costs = [loss(stripe.expand(1, 1, size, size), step).item() for stripe in stripes]
    assert costs == pytest.approx([64 / 55, 32 / 55, 16 / 55])
    assert not loss.degenerate


@pytest.mark.parametrize("levels", [1, 2, 3, 5])
def test_octave_weights_keep_the_scale_of_mse(levels):
    """Weighted by how many coefficients a subband has, they average 1; each level is twice the next."""
    table = octave_weights(levels)
    mean = sum(weight * 4.0 ** -(level + 1) for level, bands in enumerate(table) for weight in bands.values())
    assert mean == pytest.approx(1)
    assert all(a["HH"] == 2 * b["HH"] for a, b in pairwise(table))
    assert table[-1]["HH"] == 2 * table[-1]["LL"]


def test_one_mapping_serves_all_levels():
    """A mapping is the list of its copies; what it leaves out weighs 1; LL is on the last level only."""
    loss = WaveletLoss(levels=2, weights={"LL": 0.5, "HH": 2})
    assert loss.table == ({"LH": 1, "HL": 1, "HH": 2}, {"LL": 0.5, "LH": 1, "HL": 1, "HH": 2})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_is_accumulated_in_float32(dtype):
    """The loss of half or double latents is the loss of their float32 copies, to the last bit."""
    velocity, step = example(dtype=dtype)
    single = FlowStep(step.clean.float(), step.noise.float(), step.sigma)
    loss = WaveletLoss()
    value = loss(velocity, step)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(velocity.float(), single), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "unit"}, "equals sigma^2 * MSE of the velocity."),
        ({"weights": "unit", "target": "velocity"}, "equals MSE of the velocity."),
        ({"weights": dict.fromkeys(NAMES, 3)}, "equals 3 * sigma^2 * MSE of the velocity."),
        ({"weights": "unit", "wavelet": "db4", "levels": 3}, "equals sigma^2 * MSE of the velocity."),
        ({"weights": "unit", "wavelet": "db4", "mode": "periodization"}, "(for sizes divisible by 4)."),
        ({"weights": "unit", "mode": "symmetric"}, "(for sizes divisible by 4)."),
        ({"preset": "published"}, "equals sigma^2 * MSE of the velocity."),
        ({"weights": "unit", "by_sigma": "min-snr"}, "equals sigma^2 * min(SNR, 5) * MSE of the velocity."),
    ],
)
def test_a_degenerate_setting_warns_once_when_made(options, words):
    """The warning says what the loss equals; calling it says no more."""
    with pytest.warns(UserWarning, match=re.escape(words)) as caught:
        loss = WaveletLoss(**options)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert loss.degenerate
    loss(*example())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": "unit", "wavelet": "bior4.4"},
        {"weights": "unit", "wavelet": "db4", "mode": "symmetric"},
        {"weights": "unit", "penalty": "l1"},
        {"weights": "unit", "penalty": "huber"},
        {"weights": {"HH": 1.1}},
    ],
    ids=str,
)
def test_a_setting_that_does_something_does_not_warn(options):
    """And it indeed differs from sigma^2 * MSE."""
    loss = WaveletLoss(**options)
    velocity, step = example()
    assert not loss.degenerate
    assert not torch.allclose(loss(velocity, step), step.sigma**2 * mse(velocity, step), rtol=1e-3)


def test_the_published_form():
    """Haar, one level, mode zero, unit weights, clean estimate, squared error; both spellings are one."""
    with pytest.warns(UserWarning, match="plain mean squared error"):
        loss = WaveletLoss.published()
    assert (loss.wavelet, loss.levels, loss.weights, loss.mode) == ("haar", 1, "unit", "zero")
    assert (loss.target, loss.penalty) == ("clean", "l2")
    with pytest.warns(UserWarning, match="plain mean squared error"):
        assert create("loss", "wavelet", preset="published") == loss


def test_the_published_form_is_the_mean_square_of_the_stacked_subbands_of_pywavelets():
    """As the paper says it: transform both clean latents, stack LL, LH, HL and HH on channels, mean square."""
    velocity, step = example(12, 10)
    sigma = step.sigma.double().numpy().reshape(-1, 1, 1, 1)
    estimate = step.noisy.double().numpy() - sigma * velocity.double().numpy()
    stacked = []
    for latent in (estimate, step.clean.double().numpy()):
        smooth, details = pywt.dwt2(latent, "haar", mode="zero")
        stacked.append(np.concatenate([smooth, *details], axis=1))
    expected = ((stacked[0] - stacked[1]) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(quiet(preset="published")(velocity, step), expected, rtol=1e-5)


def test_weights_by_sigma_multiply_the_loss_of_each_sample():
    """min-snr is min(((1 - sigma) / sigma)^2, cap), here written out for the three samples."""
    velocity, step = example()
    ratio = WaveletLoss(by_sigma="min-snr", snr_cap=4.0)(velocity, step) / WaveletLoss()(velocity, step)
    np.testing.assert_allclose(ratio, [4.0, 1.0, 0.0], rtol=1e-5)  # sigma 0.2 has a ratio of 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wavelet": "harr"}, "got 'harr'; did you mean 'haar'?"),
        ({"wavelet": "morl"}, "a discrete wavelet of PyWavelets"),
        ({"levels": 0}, "levels must be a whole number of at least 1, got 0"),
        ({"levels": 1.5}, "levels must be a whole number"),
        ({"mode": "wrap"}, "mode must be one of zero, periodization, symmetric, reflect, got 'wrap'"),
        ({"target": "noise"}, "target must be one of clean, velocity, got 'noise'"),
        ({"penalty": "l3"}, "penalty must be one of l2, l1, huber, got 'l3'"),
        ({"delta": 0}, "delta must be a number above 0, got 0"),
        ({"by_sigma": "snr"}, "by_sigma must be one of none, min-snr, got 'snr'"),
        ({"snr_cap": 0}, "snr_cap must be a number above 0, got 0"),
        ({"preset": "published", "by_sigma": "min-snr"}, "preset 'published' means by_sigma = 'none', got 'min-snr'"),
        ({"preset": "paper"}, "preset must be one of published, None, got 'paper'"),
        ({"preset": "published", "levels": 2}, "preset 'published' means levels = 1, got 2"),
        ({"weights": "equal"}, "weights must be 'octave', 'unit', a mapping or a list of mappings, got 'equal'"),
        ({"weights": 2}, "weights must be 'octave', 'unit', a mapping or a list of mappings, got 2"),
        ({"weights": [{}]}, "levels is 2, got 1 mappings"),
        ({"weights": {"LX": 1}}, "weights has no subband 'LX'; there are LL, LH, HL, HH"),
        ({"weights": [{"LL": 1}, {}]}, "weights may name LL on the last level only"),
        ({"weights": {"HH": -1}}, "weight of HH must be a finite number of at least 0, got -1"),
        ({"weights": {"HH": float("inf")}}, "weight of HH must be a finite number"),
        ({"weights": dict.fromkeys(NAMES, 0)}, "weights must not all be 0"),
        ({"weights": "equal", "wavelet": "bior4.4"}, "weights must be 'octave', 'unit'"),
    ],
)
def test_bad_options_are_named(options, words):
    """Each is one sentence, and a ConfigError when made by name."""
    with pytest.raises(ValueError, match=re.escape(words)):
        WaveletLoss(**options)
    with pytest.raises(ConfigError, match=re.escape(words)):
        create("loss", "wavelet", **options)


def test_shapes_must_be_equal():
    """A velocity that would broadcast is refused."""
    velocity, step = example()
    with pytest.raises(ValueError, match="they must be equal"):
        WaveletLoss()(velocity[:, :1], step)
