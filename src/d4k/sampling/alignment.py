"""Low-frequency guidance: a stage keeps the composition of the picture it began with, and is free in the detail.

A guide of the sampling loop after HiFlow (arXiv 2504.06232). The formulas, and what differs from the paper, are in
`docs/mathematics.md`, section "Low-frequency guidance between stages".
"""

from __future__ import annotations

import math

import torch
from attrs import define, field
from torch import Tensor

from d4k.config import number
from d4k.errors import ConfigError
from d4k.sampling.loop import CleanEstimate

__all__ = ["ROLL_OFF", "Alignment", "low_pass"]

ROLL_OFF = 0.25
"""Half the width of the fall of `low_pass`, as a share of the cutoff."""


@define(eq=False)
class Alignment:
    """Pulls the low frequencies of every clean estimate towards the enlarged picture; the high ones stay the model's.

    Twice in each step, both times with `weight(sigma)`: the estimate is moved towards the reference (direction), and
    its change since the step before towards the change of the reference, which is none (acceleration).

    Make one for each stage and batch: it remembers the estimate of the step before, and forgets it at step 1.

    Args:
        reference: (B, C, h, w), latent of the enlarged picture, of the size of the stage.
        restart: noise level in (0, 1] that the stage begins at.
        strength: weight at `restart`, in [0, 1]; 0 leaves the stage as it is, and 1 holds it to the end.
        cutoff: which frequencies count as low, see `low_pass`: in [0, 1]; 0 is none, 1 all.

    Raises:
        ConfigError: a number is out of its range.

    Source:
        HiFlow, Bu et al. 2025, arXiv 2504.06232: direction and acceleration alignment.
    """

    reference: Tensor
    restart: float = field(validator=number(0, 1, above=True))
    strength: float = field(validator=number(0, 1))
    cutoff: float = field(validator=number(0, 1))
    _before: Tensor | None = field(default=None, init=False, repr=False)

    def weight(self, sigma: float) -> float:
        """How much of the difference to the reference is taken away: `strength ** (restart / sigma)`.

        Args:
            sigma: noise level in (0, 1]; above `restart` it counts as `restart`.

        Returns:
            A number in [0, strength], which falls with sigma unless `strength` is 1 or 0.

        >>> guide = Alignment(torch.zeros(1, 4, 8, 8), restart=0.8, strength=0.5, cutoff=0.4)
        >>> guide.weight(0.8), guide.weight(0.4), guide.weight(0.2)
        (0.5, 0.25, 0.0625)
        """
        return math.pow(self.strength, max(self.restart / sigma, 1.0))

    def __call__(self, estimate: CleanEstimate) -> Tensor:
        """The clean estimate to go on with; `estimate.clean` itself where there is nothing to change.

        Args:
            estimate: of the step that is about to be taken.

        Returns:
            (B, C, h, w) float32.

        Raises:
            ConfigError: the reference has another shape than the estimate.
        """
        clean, weight = estimate.clean, self.weight(estimate.sigma)
        if clean.shape != self.reference.shape:
            raise ConfigError(
                f"the reference has the shape {tuple(self.reference.shape)}, and the stage {tuple(clean.shape)}: "
                "enlarge and encode the picture at the size of the stage"
            )
        if not self.strength or not self.cutoff:
            return clean
        before = None if estimate.step == 1 else self._before
        aligned = clean + weight * low_pass(self.reference.to(clean) - clean, self.cutoff)
        if before is not None:
            aligned = aligned + weight * low_pass(before - aligned, self.cutoff)
        self._before = aligned
        return aligned


def low_pass(latent: Tensor, cutoff: float) -> Tensor:
    """The low frequencies of a latent: in every direction alike, and with no edge bleeding into the opposite one.

    The latent is continued by its mirror image, so this is a filter of its cosine transform (DCT-II). The gain is 1 up
    to 3/4 of the cutoff, 1/2 at the cutoff and 0 from 5/4 of it on, with a raised cosine in between: a sharp edge would
    ring, and a filter that never reaches 1 and 0 (Butterworth) neither holds the composition nor frees the detail.

    Args:
        latent: (B, C, h, w), any height and width.
        cutoff: frequency of half the gain, as a share of the Nyquist frequency, which is half a cycle a latent pixel.
            1 takes everything, diagonals beyond the Nyquist frequency too; 0 takes nothing.

    Returns:
        (B, C, h, w); its mean over rows and columns is that of `latent` unless `cutoff` is 0.

    >>> low_pass(torch.tensor([[[[0.0, 2.0], [0.0, 2.0]]]]), 0.3).flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    if cutoff in (0, 1):
        return latent if cutoff else torch.zeros_like(latent)
    height, width = latent.shape[-2:]
    mirrored = torch.cat([latent, latent.flip(-1)], -1)
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    across = 2 * torch.fft.rfftfreq(2 * width, device=latent.device)
    down = 2 * torch.fft.fftfreq(2 * height, device=latent.device)
    spectrum = torch.fft.rfft2(mirrored) * _gain(torch.hypot(down[:, None], across), cutoff)
    passed: Tensor = torch.fft.irfft2(spectrum, s=mirrored.shape[-2:])
    return passed[..., :height, :width]


def _gain(frequency: Tensor, cutoff: float) -> Tensor:
    """A raised cosine of frequencies, both as shares of the Nyquist frequency."""
    done = (frequency / cutoff - (1 - ROLL_OFF)) / (2 * ROLL_OFF)
    return (1 + torch.cos(math.pi * done.clamp(0, 1))) / 2
