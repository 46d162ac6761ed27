"""The discrete wavelet transform of latents: PyWavelets' coefficients, differentiable, on any device.

    x (B, C, h, w) ── dwt2 ──► LL  smooth both ways     LH  detail across rows
                               HL  detail across columns  HH  detail both ways

`LL, LH, HL, HH` are PyWavelets' `cA, cH, cV, cD`: the first letter is the filter along the width, the second the filter
along the height, so LH answers to horizontal edges. Float64 stays float64; every other dtype is computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import pywt
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Mode", "Subbands", "dwt2", "idwt2", "is_orthonormal", "wavedec2", "waverec2"]

Mode = Literal["zero", "periodization", "symmetric", "reflect"]
"""How the picture goes on past its border, in PyWavelets' words.

`zero` and `periodization` keep the energy of an orthogonal wavelet: `zero` for every size, at the price of
`length/2 - 1` more coefficients a side; `periodization` for even sizes, without any more.
"""


class Subbands(NamedTuple):
    """One level of a transform; each (B, C, rows, columns), about half the height and width of what was transformed."""

    LL: Tensor
    LH: Tensor
    HL: Tensor
    HH: Tensor


def dwt2(x: Tensor, wavelet: str = "haar", mode: Mode = "zero") -> Subbands:
    """One level of the two-dimensional discrete wavelet transform.

    Args:
        x: (B, C, h, w), any float dtype, any size.
        wavelet: a discrete wavelet of PyWavelets, such as "haar", "db4", "bior4.4".
        mode: how `x` goes on past its border.

    Returns:
        The coefficients of `pywt.dwt2`, (B, C, rows, columns) each.

    Source: Mallat, "A theory for multiresolution signal decomposition", IEEE TPAMI 11(7), 1989.

    >>> [band.item() for band in dwt2(torch.ones(1, 1, 2, 2))]
    [2.0, 0.0, 0.0, 0.0]
    """
    x = _precise(x)
    length = _filters(wavelet)[0].shape[-1]
    for axis in (-2, -1):
        x = _extend(x, axis, length, mode)
    return Subbands(*_Haar.apply(x)) if length == 2 else _analyse(x, wavelet)


def idwt2(
    subbands: Subbands, wavelet: str = "haar", mode: Mode = "zero", size: tuple[int, int] | None = None
) -> Tensor:
    """Inverse of `dwt2`.

    Args:
        subbands: four of one shape, (B, C, rows, columns).
        wavelet: as in `dwt2`.
        mode: as in `dwt2`.
        size: height and width of what was transformed; needed where they are odd, since `dwt2` makes them even.

    Returns:
        (B, C, h, w).

    >>> idwt2(dwt2(torch.eye(3)[None, None]), size=(3, 3))[0, 0].round().int().tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    ll, lh, hl, hh = (_precise(band) for band in subbands)
    if _filters(wavelet)[0].shape[-1] == 2:
        x: Tensor = _HaarInverse.apply(ll, lh, hl, hh)
    else:
        rows = _synthesise(ll, lh, -2, wavelet, mode), _synthesise(hl, hh, -2, wavelet, mode)
        x = _synthesise(*rows, -1, wavelet, mode)
    return x if size is None else x[..., : size[0], : size[1]]


def wavedec2(x: Tensor, wavelet: str = "haar", levels: int = 1, mode: Mode = "zero") -> list[Subbands]:
    """Transform `x`, then its LL, and so on.

    Args:
        x: (B, C, h, w).
        wavelet: as in `dwt2`.
        levels: at least 1.
        mode: as in `dwt2`.

    Returns:
        One entry a level, finest first. Only the last LL is part of the decomposition; each other one is the input of
        the level after it.
    """
    result: list[Subbands] = []
    for _ in range(levels):
        result.append(dwt2(result[-1].LL if result else x, wavelet, mode))
    return result


def waverec2(
    levels: Sequence[Subbands], wavelet: str = "haar", mode: Mode = "zero", size: tuple[int, int] | None = None
) -> Tensor:
    """Inverse of `wavedec2`.

    Args:
        levels: finest first; of the LL only the last is read.
        wavelet: as in `wavedec2`.
        mode: as in `wavedec2`.
        size: height and width of what was transformed; needed where they are odd.

    Returns:
        (B, C, h, w).
    """
    smooth = levels[-1].LL
    for bands in reversed(levels):
        rows, columns = bands.HH.shape[-2:]
        smooth = idwt2(bands._replace(LL=smooth[..., :rows, :columns]), wavelet, mode)
    return smooth if size is None else smooth[..., : size[0], : size[1]]


def is_orthonormal(wavelet: str) -> bool:
    """Whether the transform is a rotation, so that the energy of the coefficients is that of the picture.

    Args:
        wavelet: a discrete wavelet of PyWavelets.

    >>> is_orthonormal("db4"), is_orthonormal("bior4.4")
    (True, False)
    """
    analysis, synthesis = _filters(wavelet)
    return bool(np.allclose(analysis, synthesis))


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@cache
def _filters(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Analysis filters (reversed, since torch correlates) and synthesis filters: low and high, (2, length) each."""
    wavelet = pywt.Wavelet(name)
    return np.array([wavelet.dec_lo, wavelet.dec_hi])[:, ::-1].copy(), np.array([wavelet.rec_lo, wavelet.rec_hi])


def _extend(x: Tensor, axis: int, length: int, mode: Mode) -> Tensor:
    """Continue `x` along `axis` as far as filters of `length` reach, to an even size."""
    size = x.shape[axis]
    odd = size % 2
    before = (length // 2 - 1) if mode == "periodization" else (length - 2)
    if before == odd == 0:
        return x
    if mode == "zero":
        pad = (before, before + odd)
        return F.pad(x, pad if axis == -1 else (0, 0, *pad))
    index = np.arange(size)
    if mode == "periodization":
        index = np.pad(np.pad(index, (0, odd), "edge"), before, "wrap")
    else:
        index = np.pad(index, (before, before + odd), mode)
    return x.index_select(axis, torch.from_numpy(index).to(x.device))


class _Haar(torch.autograd.Function):
    """The published wavelet by sums and differences of neighbours, several times faster than a convolution.

    It is orthonormal, so its derivative is its inverse: written out, since autograd would scatter every strided slice
    into zeros of full size.
    """

    @staticmethod
    def forward(_: Any, x: Tensor) -> tuple[Tensor, ...]:
        top, bottom = x[..., ::2, :], x[..., 1::2, :]
        halves = (top + bottom).mul_(0.5), (top - bottom).mul_(0.5)
        pairs = [(half[..., ::2], half[..., 1::2]) for half in halves]
        return (*(left + right for left, right in pairs), *(left - right for left, right in pairs))

    @staticmethod
    def backward(_: Any, *bands: Tensor) -> Tensor:
        x: Tensor = _HaarInverse.apply(*bands)
        return x


class _HaarInverse(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, ll: Tensor, lh: Tensor, hl: Tensor, hh: Tensor) -> Tensor:
        rows, columns = ll.shape[-2:]
        halves = ll.new_empty(2, *ll.shape[:-1], 2 * columns)
        for half, left, right in zip(halves, (ll, lh), (hl, hh), strict=True):
            torch.add(left, right, out=half[..., ::2])
            torch.sub(left, right, out=half[..., 1::2])
        smooth, detail = halves.mul_(0.5)
        x = ll.new_empty(*ll.shape[:-2], 2 * rows, 2 * columns)
        torch.add(smooth, detail, out=x[..., ::2, :])
        torch.sub(smooth, detail, out=x[..., 1::2, :])
        return x

    @staticmethod
    def backward(_: Any, grad: Tensor) -> tuple[Tensor, ...]:
        bands: tuple[Tensor, ...] = _Haar.apply(grad)
        return bands


def _analyse(x: Tensor, wavelet: str) -> Subbands:
    taps = torch.from_numpy(_filters(wavelet)[0]).to(x)
    images = x.flatten(0, 1).unsqueeze(1)
    with _full_precision(x):
        halves = F.conv2d(images, taps[:, None, None, :], stride=(1, 2))
        quarters = F.conv2d(halves, taps[:, None, :, None].repeat(2, 1, 1, 1), stride=(2, 1), groups=2)
    return Subbands(*quarters.reshape(*x.shape[:2], *quarters.shape[1:]).unbind(2))


def _synthesise(low: Tensor, high: Tensor, axis: int, wavelet: str, mode: Mode) -> Tensor:
    taps = torch.from_numpy(_filters(wavelet)[1]).to(low)
    length = taps.shape[-1]
    pairs = torch.stack([low, high], 2).flatten(0, 1).movedim(axis, -1)
    with _full_precision(low):
        x = F.conv_transpose2d(pairs, taps[:, None, None, :], stride=(1, 2))[:, 0]
    if mode == "periodization":
        x = _fold(x, 2 * low.shape[axis], length // 2 - 1)
    else:
        x = x[..., length - 2 : x.shape[-1] - (length - 2)]
    return x.reshape(*low.shape[:2], *x.shape[1:]).movedim(-1, axis)


def _fold(x: Tensor, period: int, start: int) -> Tensor:
    """Add up what lies a whole number of periods apart; the first sample belongs at `-start`."""
    whole = math.ceil(x.shape[-1] / period) * period
    return F.pad(x, (0, whole - x.shape[-1])).reshape(*x.shape[:-1], -1, period).sum(-2).roll(-start, -1)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Convolutions inside autocast would be done in half precision."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
