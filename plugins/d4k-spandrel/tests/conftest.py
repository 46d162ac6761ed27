"""True architectures with few random weights, made so that they about copy each pixel: files as published ones are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from spandrel.architectures.DAT import DAT
from spandrel.architectures.ESRGAN import ESRGAN
from spandrel.architectures.SwinIR import SwinIR
from torch import Tensor, nn


def saved(model: nn.Module, path: Path) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, path)
    return path


def copying(convolution: nn.Module, repeat: int = 1) -> None:
    """Let the first outputs of a convolution be about the first three inputs, each `repeat` times."""
    with torch.no_grad():
        for output in range(3 * repeat):
            convolution.weight[output] *= 0.005
            convolution.weight[output, output // repeat, 1, 1] += 1
        convolution.bias *= 0.005


@pytest.fixture(scope="session")
def esrgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ESRGAN of one block and scale 4, with convolutions alone: it looks 19 pixels far."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = ESRGAN(num_filters=8, num_blocks=1, scale=4)
    for name, layer in model.named_modules():
        if name in ("model.0", "model.3", "model.6", "model.8", "model.10"):
            copying(layer)
    with torch.no_grad():
        for parameter in model.model[1].sub[-1].parameters():  # what the blocks add
            parameter *= 0.02
    return saved(model, tmp_path_factory.mktemp("esrgan") / "4x-tiny.safetensors")


def with_windows(make: Callable[[], nn.Module], path: Path) -> Path:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the architectures, about meshgrid
        torch.manual_seed(2)
        model = make()
    copying(model.conv_first)
    copying(model.upsample[0], repeat=4)  # a group of four becomes a square of 2x2 pixels
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attn" in name and name.endswith("weight"):
                parameter *= 20  # they begin at 0.02, at which attention is only a mean
        added = model.conv_after_body.weight
        added -= added.mean((2, 3), keepdim=True)  # nothing where all is flat
        added *= 0.03
        model.conv_after_body.bias.zero_()
    return saved(model, path)


@pytest.fixture(scope="session")
def swinir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SwinIR of one layer and scale 2, with windows of 8 pixels."""
    path = tmp_path_factory.mktemp("swinir") / "2x-windows.safetensors"
    return with_windows(lambda: _swinir([2]), path)


@pytest.fixture(scope="session")
def deep_swinir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SwinIR that looks farther than any overlap."""
    path = tmp_path_factory.mktemp("swinir") / "2x-deep.safetensors"
    return with_windows(lambda: _swinir([6]), path)


def _swinir(depths: list[int]) -> nn.Module:
    return SwinIR(
        img_size=16,
        embed_dim=12,
        depths=depths,
        num_heads=[2] * len(depths),
        window_size=8,
        mlp_ratio=2.0,
        upscale=2,
        upsampler="pixelshuffledirect",
    )


@pytest.fixture(scope="session")
def dat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAT of one layer and scale 2, which takes means over the whole picture."""

    def make() -> nn.Module:
        return DAT(
            img_size=16,
            embed_dim=32,
            depth=[2],
            num_heads=[2],
            split_size=[4, 8],
            expansion_factor=2.0,
            upscale=2,
            upsampler="pixelshuffledirect",
        )

    return with_windows(make, tmp_path_factory.mktemp("dat") / "2x-dat.safetensors")


@pytest.fixture(scope="session")
def picture() -> Tensor:
    """A smooth picture (1, 3, 70, 96) in [-1, 1] with a little grain, as photographs are."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 5, 7, generator=generator) * 1.6 - 0.8
    smooth = nn.functional.interpolate(coarse, (70, 96), mode="bicubic", align_corners=False)
    return (smooth + 0.02 * torch.randn(smooth.shape, generator=generator)).clamp(-1, 1)
