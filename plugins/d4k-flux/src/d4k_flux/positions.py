"""Rotary positions, and the temperature of attention, of pictures larger than those FLUX.1 was trained on.

One number says how much larger: `scale`, the square root of the ratio of the areas in tokens. Rows and columns share
it, so that a square stays a square; `docs/positions.md` says why. At or below 1 everything here is what diffusers does.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "POSITIONS",
    "TEMPERATURES",
    "RotaryPositions",
    "attach_positions",
    "enlargement",
    "frequencies",
    "sharpening",
    "token_positions",
]

POSITIONS = ("native", "interpolate", "ntk", "yarn", "resonance-yarn")
TEMPERATURES = ("auto", "trained", "proportional", "yarn")
ROTATIONS = (32, 1)
"""Turns within the trained side from which YaRN keeps a frequency, and up to which it interpolates one: `beta` and
`alpha` of arXiv 2309.00071."""


def token_positions(rows: int, columns: int, step: float = 1.0) -> Tensor:
    """Position of each token, (rows * columns, 3) float32: zero, row and column, `step` apart.

    >>> token_positions(1, 2)
    tensor([[0., 0., 0.],
            [0., 0., 1.]])
    """
    row, column = torch.meshgrid(torch.arange(rows) * step, torch.arange(columns) * step, indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3).float()


def enlargement(rows: int, columns: int, trained: int) -> float:
    """How many times longer the side of a square of as many tokens is than the trained one; at least 1.

    >>> enlargement(64, 256, trained=64)
    2.0
    """
    return max(1.0, math.sqrt(rows * columns) / trained)


def frequencies(positions: str, size: int, theta: float, trained: int, scale: float) -> Tensor:
    """Angle in radians between neighbouring tokens for each pair of channels of one axis, (size / 2,) float64.

    Args:
        positions: "ntk", "yarn" or "resonance-yarn"; any other name is that of the model's own frequencies.
        size: channels of the axis, even.
        theta: base of the geometric series of the model's own frequencies.
        trained: tokens a side of the pictures that the model was trained on.
        scale: see `enlargement`; at 1 the frequencies are the model's own.

    Source: Su et al., arXiv 2104.09864; NTK-aware interpolation and YaRN, Peng et al., arXiv 2309.00071; Resonance
    RoPE, Wang et al., arXiv 2403.00071.

    >>> (2 * math.pi / frequencies("resonance-yarn", 8, 10000, trained=64, scale=2)).round().int().tolist()
    [6, 84, 1257, 12566]
    """
    powers = torch.arange(0, size, 2, dtype=torch.float64)
    own = theta ** -(powers / size)
    if scale <= 1 or positions not in ("ntk", "yarn", "resonance-yarn"):
        return own
    if positions == "ntk":
        return own * scale ** -(powers / max(size - 2, 1))  # a base of theta * scale ** (size / (size - 2))
    kept = 1 - _interpolated(size, theta, trained)
    mixed = own * (kept + (1 - kept) / scale)
    return mixed if positions == "yarn" else 2 * math.pi / (2 * math.pi / mixed).round()


def _interpolated(size: int, theta: float, trained: int) -> Tensor:
    """Share of each frequency that is divided by the scale: a ramp over the channels, as YaRN's authors have it."""
    first, last = (
        size * math.log(trained / (2 * math.pi * rotations)) / (2 * math.log(theta)) for rotations in ROTATIONS
    )
    low = max(math.floor(first), 0)
    high = min(math.ceil(last), size - 1)
    return ((torch.arange(size // 2, dtype=torch.float64) - low) / max(high - low, 1e-3)).clamp(0, 1)


def sharpening(temperature: str, scale: float, tokens: int, trained_tokens: int) -> float:
    """What the scores of attention are multiplied by; at least 1.

    Args:
        temperature: "trained" for 1; "proportional" for the root of the ratio of the logarithms of the tokens, which
            keeps the entropy of attention; "yarn" for the square of 1 + ln(scale) / 10.
        scale: see `enlargement`.
        tokens: that a token attends to, those of the text included.
        trained_tokens: likewise, at the trained size.

    Source: "proportional": Jin et al., arXiv 2306.08645; "yarn": Peng et al., arXiv 2309.00071.

    >>> round(sharpening("proportional", 4.0, tokens=512 + 256**2, trained_tokens=512 + 64**2), 3)
    1.147
    """
    if temperature == "proportional":
        return math.sqrt(max(1.0, math.log(tokens) / math.log(trained_tokens)))
    return math.pow(1 + 0.1 * math.log(max(scale, 1.0)), 2) if temperature == "yarn" else 1.0


class RotaryPositions(torch.nn.Module):
    """Stands in for the `pos_embed` of a diffusers `FluxTransformer2DModel`; it has no parameters.

    It must be told the size of each picture with `cover`: the positions that it is called with do not say it, as each
    of several processes that share the tokens of a picture sees a part of them.

    Args:
        native: what it stands in for, a diffusers `FluxPosEmbed`.
        positions: one of `POSITIONS`.
        temperature: one of `TEMPERATURES` but "auto".
        trained: tokens a side of the pictures that the model was trained on.
    """

    def __init__(self, native: Any, positions: str, temperature: str, trained: int) -> None:
        super().__init__()
        self.native, self.positions, self.temperature, self.trained = native, positions, temperature, trained
        self.scale = self.gain = 1.0

    def cover(self, rows: int, columns: int, text: int) -> None:
        """Be ready for a picture of `rows` x `columns` tokens and a prompt of `text` tokens."""
        self.scale = enlargement(rows, columns, self.trained)
        tokens, trained = text + rows * columns, text + self.trained**2
        # queries and keys are both multiplied, and the text's with them: so every score is, by the square
        self.gain = sharpening(self.temperature, self.scale, tokens, trained) ** 0.5

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (N, 3) to cosines and sines, each (N, channels of a head) float32, every number twice."""
        if self.scale <= 1 or not (self.positions == "ntk" or self.positions.endswith("yarn")):
            cosines, sines = self.native(ids)
            return (cosines, sines) if self.gain == 1 else (cosines * self.gain, sines * self.gain)
        exact = torch.float32 if ids.device.type in ("mps", "npu") else torch.float64  # what the device has
        angles = torch.cat([self._angles(ids[:, axis].to(exact), axis) for axis in range(ids.shape[1])], dim=1)
        angles = angles.repeat_interleave(2, dim=1, output_size=2 * angles.shape[1])
        return (angles.cos() * self.gain).float(), (angles.sin() * self.gain).float()

    def _angles(self, places: Tensor, axis: int) -> Tensor:
        """Of places (N,) on one axis, (N, channels / 2)."""
        steps = frequencies(self.positions, self.native.axes_dim[axis], self.native.theta, self.trained, self.scale)
        return places[:, None] * steps.to(places)


def attach_positions(transformer: Any, positions: str, temperature: str, trained: int) -> RotaryPositions | None:
    """Give a `FluxTransformer2DModel` the positions asked for, whatever it had before.

    Args:
        transformer: of diffusers.
        positions: one of `POSITIONS`.
        temperature: one of `TEMPERATURES`; "auto" is "yarn" where positions are YaRN's, which it is a part of, and
            "trained" elsewhere.
        trained: tokens a side of the pictures that the model was trained on.

    Returns:
        What must be told the size of each picture; None where the transformer keeps diffusers' own.
    """
    native = transformer.pos_embed
    if isinstance(native, RotaryPositions):
        native = native.native
    if temperature == "auto":
        temperature = "yarn" if positions.endswith("yarn") else "trained"
    own = positions in ("native", "interpolate") and temperature == "trained"
    transformer.pos_embed = native if own else RotaryPositions(native, positions, temperature, trained)
    return None if own else transformer.pos_embed
