"""Fakes: small pictures that were enlarged, by the frequency at which their detail ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from attrs import field, frozen

from d4k.config import rules
from d4k.images import Picture
from d4k.protocols import Limit

__all__ = ["UpscaledFilter", "bandwidth"]

DROP = 10**-1.5
"""15 dB below the level that a photograph of full detail keeps."""

LOW = (0.05, 0.3)
"""Shares of the Nyquist frequency between which that level is read."""

EXCEPTIONS = 0.1
"""Share of the frequencies above the bandwidth that may hold energy, such as the echoes of compression."""


@frozen
class UpscaledFilter:
    """Rejects pictures whose detail ends well below the Nyquist frequency: enlarged ones, and soft ones alike.

    Args:
        min_bandwidth: share of the Nyquist frequency up to which there is detail, in [0, 1], at least. A picture that
            was enlarged to twice its size has 0.5, and up to 0.8 with the soft edge of a bicubic filter.

    Source: the power spectra of photographs fall with the square of the frequency (Field, "Relations between the
    statistics of natural images and the response properties of cortical cells", 1987), until the resolution ends.
    """

    min_bandwidth: float = field(default=0.82, validator=rules.number(0, 1))

    figures: ClassVar[Mapping[str, str]] = {
        "bandwidth": "share of the Nyquist frequency up to which there is detail, from 0 to 1"
    }

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The one option."""
        return (Limit("bandwidth", "min_bandwidth", least=self.min_bandwidth),)

    def measure(self, picture: Picture) -> dict[str, float]:
        """See `figures`: of the direction that has more."""
        windows = picture.windows
        return {"bandwidth": max(bandwidth(windows), bandwidth(windows.transpose(0, 2, 1)))}


def bandwidth(windows: np.ndarray) -> float:
    """Where the horizontal detail of windows (N, S, S) ends, as a share of the Nyquist frequency.

    The mean power spectrum of the rows under a Hann window is multiplied by the square of the frequency, which makes
    that of a photograph level. It ends where, all but a tenth of the frequencies above, it is 15 dB below its level.
    """
    rows = windows.reshape(-1, windows.shape[-1])
    weights = np.hanning(rows.shape[1]).astype(np.float32)
    rows = (rows - rows.mean(1, keepdims=True)) * weights
    power = np.square(np.abs(np.fft.rfft(rows, axis=1))).mean(0) / np.square(weights).sum()
    share = np.arange(len(power)) / (len(power) - 1)
    level = np.maximum(power - 1 / 12, 0) * share**2  # 1/12 is the power of rounding to whole grey levels
    level = np.convolve(level, np.ones(5) / 5, "same")
    wanted = DROP * np.median(level[(share > LOW[0]) & (share < LOW[1])])
    holding = level > wanted
    above = np.cumsum(holding[::-1])[::-1] / np.arange(len(holding), 0, -1)
    end = int(np.count_nonzero(np.maximum.accumulate((above > EXCEPTIONS)[::-1])))
    while end < len(holding) and holding[end]:  # what is left of the detail counts among the exceptions until here
        end += 1
    return float(share[end - 1]) if end else 0.0
