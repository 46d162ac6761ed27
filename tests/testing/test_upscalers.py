"""The contract of an upscaler passes what keeps it, and names the clause that another breaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attrs import frozen
from PIL import Image
from torch import Tensor

from d4k import create
from d4k.errors import ConfigError
from d4k.images import Bicubic, Lanczos
from d4k.testing import check_upscaler


@frozen
class Linear:
    """Straight lines between pixels."""

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)


@pytest.mark.parametrize("upscaler", [Lanczos(), Bicubic(), Linear()])
def test_upscalers_that_keep_the_contract_pass(upscaler: Any) -> None:
    """The registered ones, and torch's."""
    check_upscaler(upscaler)


@pytest.mark.parametrize(
    ("name", "resampling"), [("lanczos", Image.Resampling.LANCZOS), ("bicubic", Image.Resampling.BICUBIC)]
)
def test_filters_are_registered_and_are_those_of_pillow(name: str, resampling: Image.Resampling) -> None:
    """Pixel by pixel, on 8-bit pixels; a size of its own leaves the picture as it is."""
    generator = torch.Generator().manual_seed(1)
    grey = torch.randint(0, 256, (1, 3, 9, 7), generator=generator, dtype=torch.uint8)
    pixels = grey.float() / 127.5 - 1
    upscaler = create("upscaler", name)
    wanted = Image.fromarray(grey[0].permute(1, 2, 0).numpy()).resize((20, 30), resampling)
    found = ((upscaler(pixels, 30, 20)[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8)
    assert bytes(found.numpy()) == wanted.tobytes()
    assert torch.allclose(upscaler(pixels, 9, 7), pixels, atol=1e-6)
    with pytest.raises(ConfigError, match="a picture cannot become 0x5 pixels"):
        upscaler(pixels, 5, 0)


def test_bicubic_is_the_cubic_convolution_of_keys() -> None:
    """A step between two levels, doubled: the weights of Keys' kernel with a = -0.5 at a quarter of a pixel."""
    row = torch.tensor([0.0, 0.0, 0.0, 0.0, 160.0, 160.0, 160.0, 160.0]) / 127.5 - 1
    found = (create("upscaler", "bicubic")(row.expand(1, 3, 8, 8), 8, 16)[0, 0, 0] + 1) * 127.5

    def keys(x: float) -> float:
        near, a = abs(x), -0.5
        return (a + 2) * near**3 - (a + 3) * near**2 + 1 if near <= 1 else a * (near**3 - 5 * near**2 + 8 * near - 4)

    at_7, at_8 = (160 * (keys(d) + keys(d + 1)) for d in (0.75, 0.25))  # the step is between pixels 7 and 8
    assert found[7].item() == pytest.approx(at_7, abs=0.5)
    assert found[8].item() == pytest.approx(at_8, abs=0.5)
    assert found[9].item() > 160  # it overshoots


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
