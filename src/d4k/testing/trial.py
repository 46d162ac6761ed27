"""A loaded backbone and what it is tried on: pictures, their latents, noise levels and texts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from d4k.protocols import Backbone, Conditioning
from d4k.testing.attempt import attempt, shape_of

__all__ = ["PROMPTS", "Trial", "ignored_warning", "trial_of"]

PROMPTS = ("a cat", "two red brick walls")
"""Of unequal length, so that padding is seen."""

ROWS, COLUMNS = 3, 5
"""Tokens a side: odd, so that a wrong patch is seen, and unequal, so that exchanged sides are."""


@frozen(eq=False)
class Trial:
    """A backbone that was loaded in float32, on two pictures of unequal sides.

    Args:
        backbone: loaded.
        pixels: (2, 3, H, W) in [-1, 1], on the device of the weights.
        latent: of the pixels, (2, C, h, w).
        sigma: (2,) float32.
    """

    backbone: Backbone
    pixels: Tensor
    latent: Tensor
    sigma: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[-2], self.pixels.shape[-1]

    def text(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
        """Encoded prompts; what the backbone warns of is not looked at here."""
        shown = f"encode_text({list(prompts)})" if negative is None else f"encode_text({list(prompts)}, {negative!r})"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            text = attempt(shown, lambda: self.backbone.encode_text(list(prompts), negative))
        assert isinstance(text, Conditioning), f"encode_text returns d4k.Conditioning, got {shape_of(text)}"
        assert len(text) == len(prompts), f"encode_text encodes every prompt: {len(prompts)}, got {len(text)}"
        return text

    def velocity(self, text: Conditioning, guidance: float | None = None, count: int = 2, **changes: Any) -> Tensor:
        """The velocity of the last `count` pictures; `noisy`, `sigma` and `progress` may be given."""
        given = {"noisy": self.latent[-count:], "sigma": self.sigma[-count:], **changes}
        noisy, sigma = given.pop("noisy"), given.pop("sigma")
        shown = f"velocity of {shape_of(noisy)} with guidance {guidance}"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            result = attempt(shown, lambda: self.backbone.velocity(noisy, sigma, text, guidance, **given))
        assert isinstance(result, Tensor), f"velocity returns a tensor, got {shape_of(result)}"
        return result.detach()

    def direction(self) -> Tensor:
        """Noise of the shape of the latents, always the same."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.latent.shape, generator=generator).to(self.latent)


def trial_of(backbone: Backbone) -> Trial:
    """Make the trial of a backbone, and check what encoding its pictures shows."""
    spec = backbone.latent
    height, width = ROWS * spec.granularity, COLUMNS * spec.granularity
    parameter = next(backbone.trainable.parameters())
    pixels = _pictures(height, width).to(parameter.device)
    what = f"encode_image of pixels (2, 3, {height}, {width})"
    latent = attempt(what, lambda: backbone.encode_image(pixels))
    shape = (2, spec.channels, height // spec.downscale, width // spec.downscale)
    assert isinstance(latent, Tensor), f"encode_image returns a tensor, got {shape_of(latent)}"
    assert latent.shape == shape, f"encode_image returns {shape}, got {shape_of(latent)}"
    assert torch.isfinite(latent).all(), "latents are finite"
    assert torch.equal(attempt(what, lambda: backbone.encode_image(pixels)), latent), "encode_image is deterministic"
    assert not latent.requires_grad, "encode_image builds no graph for gradients"
    return Trial(backbone, pixels, latent.to(parameter.dtype), torch.tensor([0.3, 0.8], device=parameter.device))


def _pictures(height: int, width: int) -> Tensor:
    """Two smooth colour pictures over all of [-1, 1]: what an autoencoder was trained for, more than noise is."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    waves = [torch.sin(math.pi * (a * x + b * y) + c) for a, b, c in ((1, 0.5, 0), (0.3, 1.2, 1), (-0.8, 0.7, 2))]
    first = torch.stack(waves)
    return torch.stack([first, first.flip(0, -1) * 0.8])


def ignored_warning(backbone: Backbone, negative: str) -> bool:
    """Whether the backbone says that it has no use for a negative prompt."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        attempt(f"encode_text with the negative prompt {negative!r}", lambda: backbone.encode_text(["a"], negative))
    return any("negative" in str(warning.message) for warning in said)
