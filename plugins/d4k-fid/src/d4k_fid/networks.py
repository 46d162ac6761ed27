"""The networks whose features are compared: torch-fidelity's Inception, and DINOv2 as torch-fidelity calls it.

A network is placed once a process and shared by all metrics that have the same weights on the same device.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import functional as transforms

from d4k import CheckpointError
from d4k_fid.weights import read_weights, sha256_of

__all__ = ["INPUT", "WIDTH", "features", "placed", "release"]

INPUT = {"inception-v3-compat": 299, "dinov2-vit-s-14": 224, "dinov2-vit-b-14": 224, "dinov2-vit-l-14": 224}
"""Height and width in pixels that a network sees, by its name in torch-fidelity."""

WIDTH = {"inception-v3-compat": 2048, "dinov2-vit-s-14": 384, "dinov2-vit-b-14": 768, "dinov2-vit-l-14": 1024}
"""Features that a network has for a picture."""

TIMM = {
    "dinov2-vit-s-14": "vit_small_patch14_dinov2",
    "dinov2-vit-b-14": "vit_base_patch14_dinov2",
    "dinov2-vit-l-14": "vit_large_patch14_dinov2",
}
"""The same architectures in timm, whose tensors have the names of the published files."""

BATCH = 16
"""Pictures or patches that a network sees at once."""

MEAN, DEVIATION = (255 * 0.485, 255 * 0.456, 255 * 0.406), (255 * 0.229, 255 * 0.224, 255 * 0.225)
"""Of the pixels that DINOv2 was trained with."""

Key: TypeAlias = tuple[str, str, str]

_PLACED: dict[Key, nn.Module] = {}


def placed(network: str, file: Path, device: torch.device) -> nn.Module:
    """A network with the weights of a file on a device: read when it is first asked for, and shared afterwards.

    Raises:
        CheckpointError: the file does not hold its weights.
    """
    key = (network, sha256_of(file), str(device))
    if key not in _PLACED:
        build = _inception if network not in TIMM else _dinov2
        _PLACED[key] = build(network, file).requires_grad_(False).eval().to(device)
    return _PLACED[key]


def release() -> None:
    """Forget all networks that were placed; those that metrics hold stay until these are gone."""
    _PLACED.clear()


def features(network: nn.Module, pixels: Sequence[Tensor]) -> Tensor:
    """What a network says of pictures or patches of its input size.

    Args:
        network: from `placed`.
        pixels: K of (3, side, side), in [0, 255].

    Returns:
        (K, D) float32, on the CPU.
    """
    device = next(network.parameters()).device
    found = []
    with torch.inference_mode():
        for first in range(0, len(pixels), BATCH):
            batch = torch.stack([pixel.float() for pixel in pixels[first : first + BATCH]])
            found.append(network(batch.to(device)).float().cpu())
    return torch.cat(found).clone()


def _inception(network: str, file: Path) -> nn.Module:
    """All layers of torch-fidelity's network up to the 2048 pooled features, without its resizing of 8-bit pictures."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    checked = io.BytesIO()
    torch.save(read_weights(file), checked)  # torch-fidelity would unpickle whatever is in the file
    checked.seek(0)
    with _fitting(network, file):
        extractor = FeatureExtractorInceptionV3(network, ["2048"], feature_extractor_weights_path=checked)
    *layers, _ = extractor.children()  # they follow each other; the last one is the classifier
    return nn.Sequential(_Centred(), *layers, nn.Flatten())


def _dinov2(network: str, file: Path) -> nn.Module:
    """The vision transformer with the published weights; its feature is the class token after the last norm."""
    import timm

    tensors = read_weights(file)
    tensors.pop("mask_token", None)  # for training only
    side = INPUT[network]
    with torch.device("meta"):
        model: nn.Module = timm.create_model(TIMM[network], pretrained=False, num_classes=0, img_size=side)
    if "pos_embed" in tensors:
        tensors["pos_embed"] = _positions(tensors["pos_embed"], side // 14)
    with _fitting(network, file):
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    return nn.Sequential(_Normalized(), model)


def _positions(table: Tensor, side: int) -> Tensor:
    """The position table (1, 1 + n * n, C) for side x side patches, as DINOv2 makes it.

    Bicubic, by a scale that is a tenth of a patch too large: that is part of what its features are.
    """
    old = round((table.shape[1] - 1) ** 0.5)
    if old * old != table.shape[1] - 1:
        return table  # of no square: loading it says so
    grid = table[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    scale = (side + 0.1) / old
    if old != side:
        grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1].float(), grid.flatten(2).transpose(1, 2)], 1)


class _Centred(nn.Module):
    """Levels in [0, 255] as Inception was trained with them."""

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - 128) / 128


class _Normalized(nn.Module):
    """Levels in [0, 255] as DINOv2 was trained with them."""

    def forward(self, pixels: Tensor) -> Tensor:
        result: Tensor = transforms.normalize(pixels, MEAN, DEVIATION)
        return result


@contextmanager
def _fitting(network: str, file: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise CheckpointError(
            f"{file} does not hold the weights of {network}: {' '.join(lines[1:2] or lines)}"
        ) from error
