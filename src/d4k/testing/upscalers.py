"""The contract of an upscaler."""

from __future__ import annotations

import torch

from d4k.protocols import Upscaler
from d4k.testing.attempt import attempt, check_options, like

__all__ = ["check_upscaler"]


def check_upscaler(upscaler: Upscaler) -> None:
    """Check an upscaler.

    Pictures get the size that is asked for, which need be no multiple of their own, and stay about in [-1, 1]. Each is
    enlarged by itself, the same again, and stays what it shows: a flat one stays flat, and its left stays left.

    Args:
        upscaler: to check.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(upscaler)
    generator = torch.Generator().manual_seed(0)
    slope = torch.linspace(-0.9, 0.9, 24).expand(3, 16, 24)
    noise = torch.rand(3, 16, 24, generator=generator) * 1.6 - 0.8
    pixels = torch.stack([slope, noise])
    kept = pixels.clone()
    large = attempt("a call with pixels (2, 3, 16, 24) for 40 x 50", lambda: upscaler(pixels, 40, 50))
    assert tuple(large.shape) == (2, 3, 40, 50), f"pixels become (2, 3, 40, 50), got {tuple(large.shape)}"
    assert large.is_floating_point(), f"pixels are floating point, got {large.dtype}"
    assert large.device == pixels.device, f"pixels stay on their device, got {large.device}"
    assert torch.equal(pixels, kept), "an upscaler leaves the pixels that it is given as they are"
    assert bool(large.isfinite().all()), "pixels are finite"
    assert float(large.abs().max()) <= 1.05, f"pixels are in [-1, 1], got {float(large.abs().max()):.2f}"
    again, alone = upscaler(pixels, 40, 50), upscaler(pixels[1:], 40, 50)
    assert torch.equal(again, large), "the same pixels are enlarged the same again"
    assert like(alone, large[1:]), "a picture is enlarged in a batch as it is alone"
    assert float(large[0, :, :, :10].mean()) < float(large[0, :, :, -10:].mean()), "left stays left"
    flat = upscaler(torch.full((1, 3, 16, 16), 0.5), 32, 32)
    assert float((flat - 0.5).abs().max()) < 0.05, "a flat picture stays flat, and keeps its level"
