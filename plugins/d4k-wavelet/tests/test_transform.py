from __future__ import annotations

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d4k_wavelet.transform import dwt2, idwt2, is_orthonormal, wavedec2, waverec2

WAVELETS = pywt.wavelist(kind="discrete")
MODES = ["zero", "periodization", "symmetric", "reflect"]
SIZES = [(16, 12), (7, 14), (3, 2)]
SOME = ["haar", "db3", "sym5", "coif1", "bior2.2", "bior4.4", "rbio3.1"]
CASES = [(name, "zero") for name in WAVELETS] + [(name, mode) for name in SOME for mode in MODES[1:]]


def latent(*size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, *size)))


@pytest.mark.parametrize(("wavelet", "mode"), CASES)
def test_every_discrete_wavelet_gives_the_coefficients_of_pywavelets(wavelet, mode):
    """LL, LH, HL, HH are cA, cH, cV, cD to 1e-6, for even and odd sizes, also below the length of the filter."""
    for size in SIZES:
        x = latent(*size)
        smooth, details = pywt.dwt2(x.numpy(), wavelet, mode=mode)
        for ours, theirs in zip(dwt2(x, wavelet, mode), (smooth, *details), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    single = dwt2(x.float(), wavelet, mode)
    scale = max(1.0, np.abs(smooth).max())
    np.testing.assert_allclose(single.LL, smooth, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", SOME)
def test_levels_are_those_of_pywavelets(wavelet, mode):
    """Two levels of `wavedec2`, finest first, are those of `pywt.wavedec2`."""
    x = latent(37, 40)
    smooth, coarse, fine = pywt.wavedec2(x.numpy(), wavelet, mode=mode, level=2)
    ours = wavedec2(x, wavelet, 2, mode)
    for mine, theirs in zip((*ours[0][1:], *ours[1]), (*fine, smooth, *coarse), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("wavelet", "mode"), CASES)
def test_reconstruction_is_perfect(wavelet, mode):
    """The inverse gives the latent back, odd sizes too; dmey is a truncated filter, so it comes near only."""
    x = latent(7, 14)
    back = idwt2(dwt2(x, wavelet, mode), wavelet, mode, (7, 14))
    torch.testing.assert_close(back, x, rtol=0, atol=0.1 if wavelet == "dmey" else 1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", SOME)
def test_several_levels_are_undone(wavelet, mode):
    """Three levels of a latent with odd sides on the way give it back."""
    x = latent(21, 14)
    back = waverec2(wavedec2(x, wavelet, 3, mode), wavelet, mode, (21, 14))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)


@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    wavelet=st.sampled_from([name for name in WAVELETS if is_orthonormal(name) and name != "dmey"]),
    levels=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_mode_zero_keeps_the_energy_of_every_size(height, width, wavelet, levels, seed):
    """Parseval: the squares of all details and the last LL add up to the squares of the latent."""
    x = latent(height, width, seed=seed)
    bands = wavedec2(x, wavelet, levels, "zero")
    energy = bands[-1].LL.square().sum() + sum(band.square().sum() for level in bands for band in level[1:])
    torch.testing.assert_close(energy, x.square().sum(), rtol=1e-7, atol=0)


def test_periodization_keeps_the_energy_of_even_sizes():
    """And it does so without more coefficients than the latent has elements."""
    x = latent(16, 24)
    bands = dwt2(x, "db4", "periodization")
    assert sum(band.numel() for band in bands) == x.numel()
    torch.testing.assert_close(sum(band.square().sum() for band in bands), x.square().sum())


@given(scale=st.floats(-4, 4), seed=st.integers(0, 2**16), mode=st.sampled_from(MODES))
@settings(max_examples=20, deadline=None)
def test_the_transform_is_linear(scale, seed, mode):
    """W(a + s b) = W a + s W b, which is why the loss transforms one difference."""
    a, b = latent(10, 7, seed=seed), latent(10, 7, seed=seed + 1)
    together = dwt2(a + scale * b, "db2", mode)
    for band, one, other in zip(together, dwt2(a, "db2", mode), dwt2(b, "db2", mode), strict=True):
        torch.testing.assert_close(band, one + scale * other)


def test_names_of_subbands():
    """Horizontal stripes are in LH, vertical ones in HL, a checkerboard in HH, a constant in LL, and nowhere else."""
    rows, columns = (torch.arange(8.0) % 2 * 2 - 1).unsqueeze(1), torch.arange(8.0) % 2 * 2 - 1
    pictures = {"LH": rows.expand(8, 8), "HL": columns.expand(8, 8), "HH": rows * columns, "LL": torch.ones(8, 8)}
    for name, picture in pictures.items():
        bands = dwt2(picture[None, None])._asdict()
        assert [other for other, band in bands.items() if band.abs().max() > 1e-6] == [name]


@pytest.mark.parametrize(("wavelet", "mode"), [("haar", "zero"), ("db2", "zero"), ("bior2.2", "symmetric")])
def test_derivatives_are_right(wavelet, mode):
    """First and second derivatives, there and back, agree with finite differences."""
    x = torch.randn(1, 1, 2, 3, dtype=torch.float64, requires_grad=True)

    def there_and_back(x):
        bands = dwt2(x, wavelet, mode)
        return (*bands, idwt2(bands, wavelet, mode, (2, 3)))

    assert torch.autograd.gradcheck(there_and_back, x)
    assert torch.autograd.gradgradcheck(there_and_back, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_low_precision_is_computed_in_float32(wavelet, dtype):
    """Half-precision input gives exactly the coefficients of its float32 copy, inside autocast too."""
    x = latent(8, 8).to(dtype)
    expected = dwt2(x.float(), wavelet)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for band, other in zip(dwt2(x, wavelet), expected, strict=True):
            assert band.dtype == torch.float32
            torch.testing.assert_close(band, other, rtol=0, atol=0)
        back = idwt2(expected, wavelet, size=(8, 8))
    torch.testing.assert_close(back, x.float(), rtol=0, atol=1e-5)


def test_orthonormal_wavelets_are_told_from_the_others():
    """The orthogonal families of PyWavelets and the two-tap biorthogonal ones, which are Haar."""
    for name in WAVELETS:
        assert is_orthonormal(name) == (pywt.Wavelet(name).orthogonal or name in ("bior1.1", "rbio1.1"))
