"""The contract of an upscaler passes what keeps it, and names the clause that another breaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attrs import frozen
from torch import Tensor

from d4k import create
from d4k.errors import ConfigError
from d4k.images import Lanczos
from d4k.testing import check_upscaler


@frozen
class Linear:
    """Straight lines between pixels."""

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)


@pytest.mark.parametrize("upscaler", [Lanczos(), Linear()])
def test_upscalers_that_keep_the_contract_pass(upscaler: Any) -> None:
    """The registered one, and torch's."""
    check_upscaler(upscaler)


def test_lanczos_is_registered_and_is_the_filter_of_pillow() -> None:
    """Pixel by pixel, on 8-bit pixels; a size of its own leaves the picture as it is."""
    from PIL import Image

    generator = torch.Generator().manual_seed(1)
    grey = torch.randint(0, 256, (1, 3, 9, 7), generator=generator, dtype=torch.uint8)
    pixels = grey.float() / 127.5 - 1
    upscaler = create("upscaler", "lanczos")
    wanted = Image.fromarray(grey[0].permute(1, 2, 0).numpy()).resize((20, 30), Image.Resampling.LANCZOS)
    found = ((upscaler(pixels, 30, 20)[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8)
    assert bytes(found.numpy()) == wanted.tobytes()
    assert torch.allclose(upscaler(pixels, 9, 7), pixels, atol=1e-6)
    with pytest.raises(ConfigError, match="a picture cannot become 0x5 pixels"):
        upscaler(pixels, 5, 0)


class Doubling(Linear):
    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return super().__call__(pixels, 2 * pixels.shape[2], 2 * pixels.shape[3])


class Mirrored(Linear):
    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return super().__call__(pixels, height, width).flip(-1)


class Normalised(Linear):
    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return super().__call__(pixels - pixels.mean(), height, width)


class Overshooting(Linear):
    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return 1.5 * super().__call__(pixels, height, width)


class Changing(Linear):
    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return super().__call__(pixels.mul_(0.9), height, width)


class Unsteady(Linear):
    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return 0.9 * super().__call__(pixels, height, width) + 0.01 * torch.rand(())


@pytest.mark.parametrize(
    ("upscaler", "sentence"),
    [
        (Doubling(), r"pixels become \(2, 3, 40, 50\), got \(2, 3, 32, 48\)"),
        (Mirrored(), "left stays left"),
        (Normalised(), "a picture is enlarged in a batch as it is alone"),
        (Overshooting(), "pixels are in .-1, 1., got"),
        (Changing(), "leaves the pixels that it is given as they are"),
        (Unsteady(), "the same pixels are enlarged the same again"),
    ],
)
def test_upscalers_with_a_fault_fail(upscaler: Any, sentence: str) -> None:
    """One clause each."""
    with pytest.raises(AssertionError, match=sentence):
        check_upscaler(upscaler)
