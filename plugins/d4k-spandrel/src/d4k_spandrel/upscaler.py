"""A super-resolution network as an upscaler: its own scale as often as needed, then Lanczos to the size asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from attrs import define, field
from torch import Tensor

from d4k import ConfigError
from d4k.backbones import optional, whole
from d4k.images import Lanczos
from d4k_spandrel.network import Network, load_network
from d4k_spandrel.tiles import context, enlarge, overlap_for

__all__ = ["MOST_OVERLAP", "Spandrel"]

MOST_OVERLAP = 32
"""The overlap of tiles for networks that look farther than that, in pixels."""


def _path(given: str | Path) -> str:
    if not isinstance(given, str | Path) or not str(given):
        raise ConfigError(f"file must be the path of a file of weights, got {given!r}")
    return str(given)


@define(kw_only=True)
class Spandrel:
    """Enlarges pictures by a super-resolution network that spandrel reads, such as ESRGAN, SwinIR or DAT.

    The network is applied until the picture is at least as large as asked for, and the result is reduced to that size
    by Lanczos. A size that is no larger than the picture needs no network. It computes in float32, on the device of
    the pixels.

    Args:
        file: with the weights of the network, .safetensors or .pth.
        tile: pixels a side of the source that are enlarged at once, besides the overlap. A smaller picture is enlarged
            whole. It does not follow from the memory that is free, so that the same picture comes out everywhere.
        overlap: pixels around a tile that the network reads, too; at most `tile`. A quarter of them is blended with the
            neighbour, and three quarters are only read: where the network looks no farther than these, tiles make no
            difference. None is as much as that needs, which is measured, and at most 32 pixels.
    """

    file: str = field(converter=_path)
    tile: int = field(default=256, validator=whole(16))
    overlap: int | None = field(default=None, validator=optional(whole(0)))
    _network: Network | None = field(init=False, default=None, repr=False, eq=False)

    packages: ClassVar[tuple[str, ...]] = ("spandrel",)

    def __attrs_post_init__(self) -> None:
        if self.overlap is not None and self.overlap > self.tile:
            raise ConfigError(f"overlap must be at most tile, which is {self.tile}, got {self.overlap}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Which network it is: the name of the file, its SHA-256, the architecture, and its scale.

        Raises:
            CheckpointError: the network cannot be loaded.
        """
        network = self._loaded()
        return {
            "file": network.file.name,
            "sha256": network.sha256,
            "architecture": network.architecture,
            "scale": network.scale,
        }

    @property
    def exact(self) -> bool:
        """Whether a picture in tiles is the whole picture, but for rounding.

        Raises:
            CheckpointError: the network cannot be loaded.
        """
        reach = self._loaded().reach
        return reach is not None and context(self._overlap()) >= reach

    @torch.no_grad()
    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to (B, 3, height, width) in [-1, 1], float32. Each picture by itself.

        Raises:
            CheckpointError: the network cannot be loaded.
            ConfigError: the size is not positive.
        """
        if min(height, width) < 1:
            raise ConfigError(f"a picture cannot become {width}x{height} pixels; both sides must be at least 1")
        network = self._loaded().to(pixels.device)
        return torch.cat([self._one(network, picture[None], height, width) for picture in pixels])

    def _one(self, network: Network, picture: Tensor, height: int, width: int) -> Tensor:
        picture = ((picture.float() + 1) / 2).clamp(0, 1)
        while picture.shape[2] < height or picture.shape[3] < width:
            picture = enlarge(network, picture, network.scale, self.tile, self._overlap)
        picture = picture * 2 - 1
        return picture if picture.shape[2:] == (height, width) else Lanczos()(picture, height, width)

    def _overlap(self) -> int:
        if self.overlap is not None:
            return self.overlap
        reach = self._loaded().reach
        wanted = MOST_OVERLAP if reach is None else min(overlap_for(reach), MOST_OVERLAP)
        return min(wanted, self.tile)

    def _loaded(self) -> Network:
        if self._network is None:
            self._network = load_network(self.file)
        return self._network
