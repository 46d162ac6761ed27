"""The distribution of latents against diffusers' own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from d4k.autoencoder import Posterior, encode, posterior


def make_vae(**options: Any) -> Any:
    torch.manual_seed(0)
    settings = {"latent_channels": 4, "norm_num_groups": 4, "scaling_factor": 0.7, "shift_factor": 0.1} | options
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(block_out_channels=(8, 16), **blocks, **settings).eval()


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 32, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("double", [False, True], ids=["own", "twice"])
def test_moments_are_those_of_diffusers_shifted_and_scaled(pixels: torch.Tensor, double: bool) -> None:
    vae = make_vae()
    whole = copy.deepcopy(vae)
    whole.encoder.conv_in.stride = (2, 2) if double else (1, 1)
    with torch.no_grad():
        theirs = whole.encode(pixels).latent_dist
    ours = posterior(vae, pixels, downscale=4 if double else 2)
    torch.testing.assert_close(ours.mean, (theirs.mean - 0.1) * 0.7)
    assert ours.log_variance is not None
    torch.testing.assert_close(torch.exp(ours.log_variance), theirs.var * 0.7**2)


def test_a_sample_is_that_of_diffusers(pixels: torch.Tensor) -> None:
    vae = make_vae()
    with torch.no_grad():
        theirs = vae.encode(pixels).latent_dist.sample(torch.Generator().manual_seed(3))
    ours = posterior(vae, pixels, downscale=2)
    noise = torch.randn(ours.mean.shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours.sample(noise), (theirs - 0.1) * 0.7)


def test_the_mean_is_what_encode_returns(pixels: torch.Tensor) -> None:
    vae = make_vae()
    assert torch.equal(posterior(vae, pixels, downscale=2).mean, encode(vae, pixels, downscale=2))


def test_a_variance_beyond_the_bounds_of_diffusers_is_cut_before_it_is_scaled(pixels: torch.Tensor) -> None:
    vae = make_vae()
    with torch.no_grad():
        vae.quant_conv.bias[4:] = torch.tensor([1e4, -1e4, 0.0, 0.0])
    found = posterior(vae, pixels, downscale=2).log_variance
    assert found is not None
    scaled = 2 * torch.log(torch.tensor(0.7))
    torch.testing.assert_close(found[:, 0], torch.full_like(found[:, 0], 20.0) + scaled)
    torch.testing.assert_close(found[:, 1], torch.full_like(found[:, 1], -30.0) + scaled)


def test_without_a_variance_a_sample_is_the_mean() -> None:
    mean = torch.ones(1, 2, 3, 4)
    assert torch.equal(Posterior(mean).sample(torch.full_like(mean, 5.0)), mean)
