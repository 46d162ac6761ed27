"""What of the contract concerns the autoencoder: scale, range, determinism."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from d4k.autoencoder import Posterior
from d4k.testing.attempt import attempt, like, shape_of
from d4k.testing.trial import Trial

__all__ = ["check_latents"]

WORKING = 0.8
"""Correlation of pictures with their reconstructions from which on the autoencoder is taken for a trained one."""


@torch.no_grad()
def check_latents(trial: Trial) -> None:
    """Check what encoding and decoding show: sizes, determinism, scale of the latents, range of the pixels."""
    backbone, pixels = trial.backbone, trial.pixels
    what = f"decode of a latent {shape_of(trial.latent)}"
    decoded = attempt(what, lambda: backbone.decode(trial.latent))
    assert isinstance(decoded, Tensor), f"decode returns a tensor, got {shape_of(decoded)}"
    assert decoded.shape == pixels.shape, (
        f"decode returns pixels of the size that was encoded, {shape_of(pixels)}, got {shape_of(decoded)}"
    )
    assert torch.isfinite(decoded).all(), "decoded pixels are finite"
    assert torch.equal(attempt(what, lambda: backbone.decode(trial.latent)), decoded), "decode is deterministic"
    alone = backbone.encode_image(pixels[1:])
    assert like(alone, trial.latent[1:]), "the latent of a picture does not depend on its batch"
    _check_posterior(trial)
    _check_scale(trial, decoded)
    _check_reconstruction(trial, decoded)


def _check_posterior(trial: Trial) -> None:
    """Where there is one: its mean is the latent, and its variance is one."""
    encode = getattr(trial.backbone, "encode_posterior", None)
    if encode is None:
        return
    found = attempt("encode_posterior", lambda: encode(trial.pixels))
    assert isinstance(found, Posterior), f"encode_posterior returns a Posterior, got a {type(found).__name__}"
    assert torch.equal(found.mean, trial.latent), "the mean of encode_posterior is what encode_image returns"
    if found.log_variance is not None:
        same = found.log_variance.shape == found.mean.shape
        assert same, f"the log-variance has the shape of the mean, got {shape_of(found.log_variance)}"
        assert torch.isfinite(found.log_variance).all(), "the log-variance is finite"


def _check_scale(trial: Trial, decoded: Tensor) -> None:
    """Against the formula of diffusers, where the autoencoder has its scale in its configuration."""
    vae: Any = trial.backbone.components["vae"]
    scale = getattr(getattr(vae, "config", None), "scaling_factor", None)
    if not isinstance(scale, float | int):
        return
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    encoded = attempt("encode of the autoencoder itself", lambda: vae.encode(trial.pixels.to(vae.dtype)))
    plain = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
    if plain.shape != trial.latent.shape:
        return  # run at another stride than its own
    expected = (plain - shift) * scale
    assert like(trial.latent, expected, 1e-2), (
        f"encode_image takes pixels in [-1, 1] as they are and returns (mode - {shift:g}) * {scale:g}: "
        f"{_figures(trial.latent)} expected {_figures(expected)}"
    )
    expected = vae.decode(trial.latent.to(vae.dtype) / scale + shift).sample
    assert like(decoded, expected, 1e-2), (
        f"decode divides by {scale:g}, adds {shift:g} and returns pixels in [-1, 1]: "
        f"{_figures(decoded)} expected {_figures(expected)}"
    )


def _check_reconstruction(trial: Trial, decoded: Tensor) -> None:
    """An autoencoder that works gives back what it was given, and its latents are about as wide as noise."""
    given, got = (x.double().flatten() for x in (trial.pixels, decoded))
    given, got = given - given.mean(), got - got.mean()
    strength = given.norm() * got.norm()
    if strength == 0 or float(given @ got / strength) < WORKING:
        return
    gain = float(given @ got / given.square().sum())
    offset = float(decoded.mean() - trial.pixels.mean())
    assert 0.7 < gain < 1.4 and abs(offset) < 0.25, (  # noqa: PT018
        f"pixels lie in [-1, 1] on the way in and on the way out; decoded pictures have {gain:.2f} times the contrast "
        f"of the encoded ones and are {offset:+.2f} brighter"
    )
    width = float(trial.latent.std())
    assert 0.2 < width < 5, f"latents are scaled to about unit variance, got a standard deviation of {width:.2g}"


def _figures(tensor: Tensor) -> str:
    return f"mean {float(tensor.mean()):.3f} and deviation {float(tensor.std()):.3f},"
