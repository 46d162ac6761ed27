"""Feature maps that are computed a band of rows at a time, each from the maps before it.

A map is either stored, or it is a recipe: `rows(first, last)` computes that band and nothing else. Bands are exact: a
convolution asks its source for the rows around the band that its kernel sees, and a normalisation uses the statistics
of the whole map.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from attrs import Factory, define, field, frozen
from torch import Tensor

__all__ = ["CHUNK", "Conv", "Map", "Moments", "Normed", "Stored", "Sum", "Upsampled", "layout"]

CHUNK = 8
"""Rows whose statistics are taken together. Bands are whole chunks, so that the sums do not depend on their height."""


def layout(device: torch.device) -> torch.memory_format:
    """How maps lie in memory: channels last, so that a band is one piece; MPS prefers channels first."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


class Map(Protocol):
    """Channels, height and width of a map, its rows, and what they cost."""

    @property
    def channels(self) -> int:
        """C."""

    @property
    def height(self) -> int:
        """Rows of the whole map."""

    @property
    def width(self) -> int:
        """Columns."""

    def rows(self, first: int, last: int) -> Tensor:
        """Rows `first` to `last` (excluded), (1, C, last - first, W); not to be written to."""

    def work(self, count: int) -> int:
        """Values held at most while `count` rows are computed, the result included."""


@define(eq=False)
class Moments:
    """Mean and variance of each channel of a map, gathered chunk by chunk in float64.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    count: int = 0
    mean: Any = 0.0
    squares: Any = 0.0

    def add(self, band: Tensor) -> None:
        """Take in a band, (1, C, n, W); it begins where a chunk begins."""
        for chunk in torch.split(band, CHUNK, dim=2):
            values = chunk[0].permute(1, 2, 0).flatten(0, 1).float()
            mean = values.mean(0)
            squares = (values - mean).square_().sum(0)
            self._merge(len(values), _double(mean), _double(squares))

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + count
        step = mean - self.mean
        self.squares = self.squares + squares + step * step * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    def affine(self, norm: torch.nn.GroupNorm) -> tuple[Tensor, Tensor]:
        """Scale and shift of each channel that do what `norm` does, (C, 1, 1) float32."""
        groups = norm.num_groups
        mean = self.mean.reshape(groups, -1)
        centre = mean.mean(1, keepdim=True)
        variance = self.squares.reshape(groups, -1).mean(1, keepdim=True) / self.count
        variance = variance + (mean - centre).square().mean(1, keepdim=True)
        scale = (variance + norm.eps).rsqrt()
        shift = -centre * scale
        weight, bias = (_double(p).reshape(groups, -1) for p in (norm.weight, norm.bias))
        size = (len(norm.weight), 1, 1)
        return (scale * weight).reshape(size).float(), (shift * weight + bias).reshape(size).float()


def _double(values: Tensor) -> Tensor:
    return values.float() if values.device.type == "mps" else values.double()  # MPS has no float64


@define(eq=False)
class Stored:
    """A map in memory. Its tensor is absent while memory is only being planned."""

    channels: int
    height: int
    width: int
    tensor: Tensor | None = None
    moments: Moments | None = None

    @property
    def size(self) -> int:
        """Values."""
        return self.channels * self.height * self.width

    @property
    def values(self) -> Tensor:
        """The tensor, (1, C, H, W)."""
        assert self.tensor is not None  # planning asks for sizes only
        return self.tensor

    def rows(self, first: int, last: int) -> Tensor:
        """A view."""
        return self.values[:, :, first:last]

    def work(self, count: int) -> int:  # noqa: ARG002
        """A view costs nothing."""
        return 0


@frozen(eq=False)
class Upsampled:
    """Every row and column of the source twice (nearest neighbour)."""

    source: Map

    @property
    def channels(self) -> int:
        """As the source."""
        return self.source.channels

    @property
    def height(self) -> int:
        """Twice the source's."""
        return 2 * self.source.height

    @property
    def width(self) -> int:
        """Twice the source's."""
        return 2 * self.source.width

    def rows(self, first: int, last: int) -> Tensor:
        """See `Map`."""
        low, high = first // 2, -(-last // 2)
        twice = F.interpolate(self.source.rows(low, high), scale_factor=2.0, mode="nearest")
        return twice[:, :, first - 2 * low : last - 2 * low]

    def work(self, count: int) -> int:
        """See `Map`."""
        return self.source.work(count // 2 + 2) + self.channels * (count + 2) * self.width


@frozen(eq=False)
class Normed:
    """Group normalisation and activation of the source.

    Args:
        source: any map.
        affine: scale and shift, see `Moments.affine`; computed in float32 for sources in half precision.
        activation: elementwise.
    """

    source: Map
    affine: tuple[Tensor, Tensor] | None
    activation: Callable[[Tensor], Tensor]

    @property
    def channels(self) -> int:
        """As the source."""
        return self.source.channels

    @property
    def height(self) -> int:
        """As the source."""
        return self.source.height

    @property
    def width(self) -> int:
        """As the source."""
        return self.source.width

    def rows(self, first: int, last: int) -> Tensor:
        """See `Map`."""
        assert self.affine is not None  # planning asks for sizes only
        scale, shift = self.affine
        band = self.source.rows(first, last)
        values = torch.addcmul(shift, band.float(), scale)
        if isinstance(self.activation, torch.nn.SiLU):
            return F.silu(values, inplace=True).to(band.dtype)
        return self.activation(values).to(band.dtype)

    def work(self, count: int) -> int:
        """See `Map`; half precision passes through float32."""
        return self.source.work(count) + 3 * self.channels * count * self.width


@frozen(eq=False)
class Conv:
    """A convolution with zero padding.

    Args:
        source: any map.
        module: its weight and bias.
        stride: of rows and columns.
        padding: zeros before the first and after the last row and column of the source; the module's own by default.
    """

    source: Map
    module: torch.nn.Conv2d
    stride: int = 1
    padding: tuple[int, int] = Factory(lambda self: (self.module.padding[0],) * 2, takes_self=True)
    weight: Tensor = field(init=False)

    @weight.default
    def _in_layout(self) -> Tensor:
        return self.module.weight.to(memory_format=layout(self.module.weight.device))

    @property
    def channels(self) -> int:
        """Of the result."""
        return self.module.out_channels

    @property
    def height(self) -> int:
        """Of the result."""
        return self._length(self.source.height)

    @property
    def width(self) -> int:
        """Of the result."""
        return self._length(self.source.width)

    def rows(self, first: int, last: int) -> Tensor:
        """See `Map`."""
        before, after = self.padding
        start, stop = first * self.stride - before, (last - 1) * self.stride - before + self._kernel
        low, high = max(start, 0), min(stop, self.source.height)
        band = self.source.rows(low, high)
        even = before == after
        border = (0, 0) if even else (before, after)
        if low > start or high < stop or not even:
            band = F.pad(band, (*border, low - start, stop - high))
        return F.conv2d(band, self.weight, self.module.bias, self.stride, (0, before if even else 0))

    def work(self, count: int) -> int:
        """See `Map`."""
        seen = (count - 1) * self.stride + self._kernel
        padded = self.source.channels * seen * self.source.width
        return self.source.work(seen) + padded + self.channels * count * self.width

    @property
    def _kernel(self) -> int:
        return self.module.kernel_size[0]

    def _length(self, source: int) -> int:
        return (source + sum(self.padding) - self._kernel) // self.stride + 1


@frozen(eq=False)
class Sum:
    """A residual connection: `(left + right) / divisor`."""

    left: Map
    right: Map
    divisor: float = 1.0

    @property
    def channels(self) -> int:
        """As both."""
        return self.right.channels

    @property
    def height(self) -> int:
        """As both."""
        return self.right.height

    @property
    def width(self) -> int:
        """As both."""
        return self.right.width

    def rows(self, first: int, last: int) -> Tensor:
        """See `Map`."""
        total = self.right.rows(first, last).add_(self.left.rows(first, last))
        return total if self.divisor == 1 else total.div_(self.divisor)

    def work(self, count: int) -> int:
        """See `Map`."""
        return self.left.work(count) + self.right.work(count)
