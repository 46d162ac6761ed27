"""The encoder and the decoder of an `AutoencoderKL`, run over bands of rows within a limit of memory.

Each step keeps a map in memory, or, where it does not fit, goes on with its recipe, which computes every band of it
again whenever it is needed. Both give the same values. The same walk without tensors tells the memory beforehand.
"""

from __future__ import annotations

from typing import Any

import torch
from attrs import define
from torch import Tensor

from d4k.autoencoder.maps import CHUNK, Conv, Map, Moments, Normed, Stored, Sum, Upsampled, layout

__all__ = ["Workspace", "decode_map", "encode_map"]

SMALLEST = 2 * CHUNK  # rows of a band that are worth their halo
LARGEST = 2**26  # values of a band; larger ones only cost page faults
ATTENTION = 7  # maps beside its input: normalised, query, key, value, their mix, the projection, the sum


@define(eq=False)
class Workspace:
    """Holds the maps of one run and counts their bytes.

    Args:
        device: of maps and weights; "meta" counts and computes nothing.
        dtype: of maps and weights.
        limit: bytes that maps and bands may take together.
        keeping: which maps stay in memory that could be computed again: "all", "none", or those "fitting" the limit.
        live: bytes of the maps that are stored now.
        peak: the most that maps and bands took.
    """

    device: torch.device
    dtype: torch.dtype
    limit: float
    keeping: str = "fitting"
    live: int = 0
    peak: int = 0

    @property
    def planning(self) -> bool:
        """Whether nothing is computed."""
        return self.device.type == "meta"

    def store(self, wanted: Map, into: Stored | None = None, *, measure: bool = True) -> Stored:
        """Compute a map into memory.

        Args:
            wanted: to compute.
            into: overwritten with the result, and not to be used afterwards; a new tensor when left out. `wanted` may
                read up to two rows around a band from it: a band is written when the next one has been computed.
            measure: gather the statistics of the result.
        """
        shape = wanted.channels, wanted.height, wanted.width
        out = self.hold(shape) if into is None else Stored(*shape, into.tensor)
        moments = Moments() if measure else None
        waiting: tuple[int, int, Tensor] | None = None
        for first, last in self._bands(wanted):
            band = wanted.rows(first, last)
            if moments is not None:
                moments.add(band)
            self._write(out, waiting)
            waiting = first, last, band
        self._write(out, waiting)
        out.moments = moments
        return out

    def keep(self, wanted: Map, beside: int = 0) -> Map:
        """The map in memory, or as its recipe where there is no room for it and for `beside` more values."""
        needed = (_size(wanted) + max(0, beside) + self._cost(wanted, SMALLEST)) * self.dtype.itemsize
        stored = self.keeping == "all" or (self.keeping == "fitting" and self.live + needed <= self.limit)
        return self.store(wanted) if stored else wanted

    def normed(self, source: Map, norm: torch.nn.GroupNorm, activation: Any) -> Normed:
        """A map behind a group normalisation; goes through the map once if its statistics are not known."""
        if self.planning:
            if not isinstance(source, Stored):
                self._bands(source)
            return Normed(source, None, activation)
        moments = source.moments if isinstance(source, Stored) else None
        if moments is None:
            moments = Moments()
            for first, last in self._bands(source):
                moments.add(source.rows(first, last))
        return Normed(source, moments.affine(norm), activation)

    def hold(self, given: Tensor | tuple[int, int, int]) -> Stored:
        """Count a map as stored: a tensor (1, C, H, W) that is there, or room for C, H and W."""
        shape = given if isinstance(given, tuple) else (given.shape[1], given.shape[2], given.shape[3])
        out = Stored(*shape)
        self.live += out.size * self.dtype.itemsize
        if isinstance(given, Tensor):
            out.tensor = given
        elif not self.planning:
            out.tensor = torch.empty(
                (1, *shape), device=self.device, dtype=self.dtype, memory_format=layout(self.device)
            )
        return out

    def free(self, source: Map) -> None:
        """Give the room of a map back, or of the stored map that its recipe begins with."""
        while not isinstance(source, Stored):
            source = source.source  # type: ignore[attr-defined]
        self.live -= source.size * self.dtype.itemsize
        source.tensor = None

    def _bands(self, wanted: Map) -> list[tuple[int, int]]:
        """Bands of whole chunks, as high as the limit allows; none while planning."""
        bytes_each = self.dtype.itemsize
        most = min((self.limit - self.live) / bytes_each, max(LARGEST, wanted.work(SMALLEST)))
        count = CHUNK
        while count < wanted.height and self._cost(wanted, 2 * count) <= most:
            count *= 2
        self.peak = max(self.peak, self.live + self._cost(wanted, count) * bytes_each)
        if self.planning:
            return []
        return [(first, min(first + count, wanted.height)) for first in range(0, wanted.height, count)]

    def _cost(self, wanted: Map, count: int) -> int:
        """Values held while a band is computed and the one before it waits."""
        return wanted.work(count) + wanted.channels * wanted.width * count

    @staticmethod
    def _write(out: Stored, waiting: tuple[int, int, Tensor] | None) -> None:
        if waiting is not None:
            first, last, band = waiting
            out.rows(first, last).copy_(band)


def decode_map(work: Workspace, decoder: Any, latent: Stored, *, enlarge: bool) -> Stored:
    """Run a diffusers `Decoder`.

    Args:
        work: holds the maps.
        decoder: of an `AutoencoderKL`.
        latent: held by `work`; given back.
        enlarge: double rows and columns just before the last convolution.

    Returns:
        The picture, held by `work`.
    """
    current: Map = _next(work, Conv(latent, decoder.conv_in), latent)
    current = _middle(work, decoder.mid_block, current)
    for block, after in zip(decoder.up_blocks, [*decoder.up_blocks[1:], None], strict=True):
        for resnet in block.resnets:
            current = _resnet(work, resnet, current)
        if block.upsamplers and after is not None:
            large = Conv(Upsampled(current), block.upsamplers[0].conv)
            inner = large.height * large.width * after.resnets[0].out_channels
            current = _next(work, large, current, beside=inner - _size(current))
    last: Map = work.normed(current, decoder.conv_norm_out, decoder.conv_act)
    picture = work.store(Conv(Upsampled(last) if enlarge else last, decoder.conv_out), measure=False)
    work.free(current)
    return picture


def encode_map(work: Workspace, encoder: Any, pixels: Stored, *, stride: int) -> Stored:
    """Run a diffusers `Encoder`.

    Args:
        work: holds the maps.
        encoder: of an `AutoencoderKL`.
        pixels: held by `work`; given back.
        stride: of the first convolution.

    Returns:
        Mean and logarithm of the variance of the posterior, held by `work`.
    """
    first = Conv(pixels, encoder.conv_in, stride)
    current = _next(work, first, pixels, beside=_size(first) - _size(pixels))
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            current = _resnet(work, resnet, current)
        if block.downsamplers:
            current = _next(work, Conv(current, block.downsamplers[0].conv, stride=2, padding=(0, 1)), current)
    current = _middle(work, encoder.mid_block, current)
    last = work.normed(current, encoder.conv_norm_out, encoder.conv_act)
    posterior = work.store(Conv(last, encoder.conv_out), measure=False)
    work.free(current)
    return posterior


def _size(current: Map) -> int:
    return current.channels * current.height * current.width


def _next(work: Workspace, current: Map, source: Map, beside: int = 0) -> Map:
    """Keep a current and give its source back, or leave both as they are."""
    kept = work.keep(current, beside)
    if kept is not current:
        work.free(source)
    return kept


def _resnet(work: Workspace, block: Any, current: Map) -> Stored:
    """A residual block; its result takes the place of its input, or of the current between its convolutions."""
    inner = work.keep(Conv(work.normed(current, block.norm1, block.nonlinearity), block.conv1))
    straight = current if block.conv_shortcut is None else Conv(current, block.conv_shortcut)
    right = Conv(work.normed(inner, block.norm2, block.nonlinearity), block.conv2)
    out = Sum(straight, right, block.output_scale_factor)
    if isinstance(current, Stored) and straight is current:
        result = work.store(out, current)
        if isinstance(inner, Stored):
            work.free(inner)
        return result
    result = work.store(out, inner if isinstance(inner, Stored) else None)
    work.free(current)
    return result


def _middle(work: Workspace, block: Any, current: Map) -> Stored:
    result = _resnet(work, block.resnets[0], current)
    for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
        if attention is not None:
            _attend(work, attention, result)
        result = _resnet(work, resnet, result)
    return result


def _attend(work: Workspace, attention: Any, current: Stored) -> None:
    """Self-attention of all positions, in place; torch's kernels never hold the table of all pairs."""
    work.peak = max(work.peak, work.live + ATTENTION * current.size * work.dtype.itemsize)
    if current.tensor is not None:
        current.tensor.copy_(attention(current.tensor))
        current.moments = None
