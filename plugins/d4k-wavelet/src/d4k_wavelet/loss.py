"""The wavelet loss: flow matching whose error is weighted by subband."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pywt
import torch
from attrs import field, frozen
from torch import Tensor

from d4k import FlowStep
from d4k.flow import per_sample
from d4k_wavelet.checks import is_count, is_discrete, is_positive, one_of
from d4k_wavelet.transform import Mode, Subbands, is_orthonormal, wavedec2

__all__ = ["BySigma", "Penalty", "Target", "WaveletLoss", "Weights", "capped_snr", "octave_weights", "velocity_error"]

Penalty = Literal["l2", "l1", "huber"]
Target = Literal["clean", "velocity"]
BySigma = Literal["none", "min-snr"]
Weights = Literal["octave", "unit"] | Mapping[str, float] | Sequence[Mapping[str, float]]
Table = tuple[dict[str, float], ...]

PUBLISHED = {
    "wavelet": "haar",
    "levels": 1,
    "weights": "unit",
    "mode": "zero",
    "target": "clean",
    "penalty": "l2",
    "by_sigma": "none",
}


def octave_weights(levels: int) -> Table:
    """Weights that double from an octave to the next finer one, so that detail counts and composition is kept.

    The power of natural images falls about fourfold an octave, so plain mean square hardly sees fine detail; doubling
    is half way, on a logarithmic scale, between it and full whitening. The weights are scaled so that an error spread
    evenly over all coefficients costs its mean square.

    Args:
        levels: at least 1.

    Returns:
        One mapping a level, finest first; LL, in the last, weighs half of the coarsest detail.

    Source: Field, "Relations between the statistics of natural images and the response properties of cortical
    cells", JOSA A 4(12), 1987.

    >>> octave_weights(1)[0]["HH"] * 7
    8.0
    """
    details = [2.0 ** (levels - level) for level in range(levels)]
    mean = 4.0**-levels + sum(3 * weight / 4 ** (level + 1) for level, weight in enumerate(details))
    table = tuple(dict.fromkeys(("LH", "HL", "HH"), weight / mean) for weight in details)
    table[-1]["LL"] = 1 / mean
    return table


def capped_snr(sigma: Tensor, cap: float) -> Tensor:
    """The ratio of signal to noise of a noisy latent, ((1 - sigma) / sigma)^2, held below a cap.

    As a weight of the error of the clean latent it trains a picture as strongly as its noise level lets one see it,
    and the lowest noise levels, where there is nothing to learn, no more than others.

    Args:
        sigma: (B,) in [0, 1].
        cap: above 0.

    Returns:
        (B,), from 0 at sigma 1 to `cap` at sigma 0.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", arXiv 2303.09556.

    >>> capped_snr(torch.tensor([0.0, 0.5, 1.0]), 5.0)
    tensor([5., 1., 0.])
    """
    # sigma from which the ratio is below the cap: the division is never by zero
    return ((1 - sigma) / sigma.clamp(min=1 / (1 + math.sqrt(cap)))).square().clamp(max=cap)


def velocity_error(velocity: Tensor, step: FlowStep) -> Tensor:
    """The error of a predicted velocity in float32, (B, C, h, w).

    Raises:
        ValueError: the shapes differ.
    """
    if velocity.shape != step.clean.shape:
        raise ValueError(
            f"predicted velocity has shape {tuple(velocity.shape)}, the latent {tuple(step.clean.shape)}; "
            "they must be equal"
        )
    return (velocity.float() - step.noise.float()).add_(step.clean.float())


@frozen(kw_only=True)
class WaveletLoss:
    """Flow matching in wavelet space: the error is transformed once, and every subband has its weight.

    With an orthonormal wavelet, a boundary mode that keeps energy, squared error and equal weights this is plain mean
    squared error (Parseval); such a setting warns when it is made. The default is not of that kind: two levels, with
    the weights of `octave_weights`.

    Args:
        preset: "published" is the form of the paper's code (Haar, one level, unit weights, clean estimate, squared
            error); other options may then only repeat it.
        wavelet: a discrete wavelet of PyWavelets, orthogonal or biorthogonal.
        levels: how often LL is split again, at least 1.
        weights: "octave" (see `octave_weights`); "unit"; a mapping such as {"LL": 0.5, "HH": 2} for all levels; or a
            list of such mappings, one a level, finest first. A subband left out weighs 1. LL exists on the last level.
        mode: what lies beyond the border: "zero" (published; keeps energy), "periodization", "symmetric", "reflect".
        target: compare estimates of the clean latent, whose error is sigma times that of the velocity, or velocities.
        penalty: of a coefficient c: "l2", c^2; "l1", |c|; "huber", c^2 up to delta and 2 delta |c| - delta^2 beyond.
        delta: where huber turns from square to straight, above 0.
        by_sigma: weight of a sample by its noise level: "none", 1; "min-snr", see `capped_snr`, meant for the target
            "clean".
        snr_cap: largest weight of "min-snr", above 0.

    Raises:
        ValueError: an option is out of range; the sentence names what is allowed.

    Source: Zhang et al., "Diffusion-4K", arXiv 2503.18352, section 3.3.

    >>> WaveletLoss().table[0]["HH"] > WaveletLoss().table[1]["HH"] > WaveletLoss().table[1]["LL"]
    True
    """

    preset: Literal["published"] | None = field(default=None, validator=one_of(Literal["published", None]))
    wavelet: str = field(default="haar", validator=is_discrete)
    levels: int = field(validator=is_count)
    weights: Weights = field()
    mode: Mode = field(default="zero", validator=one_of(Mode))
    target: Target = field(default="clean", validator=one_of(Target))
    penalty: Penalty = field(default="l2", validator=one_of(Penalty))
    delta: float = field(default=1.0, validator=is_positive)
    by_sigma: BySigma = field(default="none", validator=one_of(BySigma))
    snr_cap: float = field(default=5.0, validator=is_positive)

    @levels.default
    def _default_levels(self) -> int:
        return 2 if self.preset is None else 1

    @weights.default
    def _default_weights(self) -> Weights:
        return "octave" if self.preset is None else "unit"

    @weights.validator
    def _check_weights(self, _: object, value: Weights) -> None:
        _resolve(value, self.levels)

    def __attrs_post_init__(self) -> None:
        if self.preset is not None:
            for name, value in PUBLISHED.items():
                given = getattr(self, name)
                if given != value:
                    raise ValueError(f"preset 'published' means {name} = {value!r}, got {given!r}; leave one out")
        if self.degenerate:
            warnings.warn(self._plain_truth(), UserWarning, stacklevel=3)

    @classmethod
    def published(cls) -> WaveletLoss:
        """The form of the paper's code. It warns, since it equals sigma^2 times plain mean squared error."""
        return cls(preset="published")

    @property
    def table(self) -> Table:
        """The weights, resolved: one mapping a level, finest first."""
        return _resolve(self.weights, self.levels)

    @property
    def degenerate(self) -> bool:
        """Whether this is plain mean squared error, by Parseval's theorem."""
        rotation = is_orthonormal(self.wavelet) and (self.mode in ("zero", "periodization") or self._haar)
        return rotation and self.penalty == "l2" and len(self._distinct_weights) == 1

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        """Compare a predicted velocity with a step.

        Args:
            velocity: predicted, (B, C, h, w), any float dtype.
            step: what the model was shown.

        Returns:
            (B,) float32: the weighted cost of all coefficients, divided by the number of latent elements, C * h * w.

        Raises:
            ValueError: the shapes differ.
        """
        error = velocity_error(velocity, step)
        if self.target == "clean":
            error = error.mul_(-per_sample(step.sigma).float())
        levels = wavedec2(error, self.wavelet, self.levels, self.mode)
        costs = [
            weight * self._cost(getattr(bands, name))
            for bands, weights in zip(levels, self.table, strict=True)
            for name, weight in weights.items()
        ]
        cost = torch.stack(costs).sum(0) / error[0].numel()
        return cost if self.by_sigma == "none" else cost * capped_snr(step.sigma.float(), self.snr_cap)

    def _cost(self, band: Tensor) -> Tensor:
        if self.penalty == "l2":
            return band.square().sum((1, 2, 3))
        size = band.abs()
        if self.penalty == "huber":
            square = size.clamp(max=self.delta)
            size = square * (2 * size - square)
        return size.sum((1, 2, 3))

    @property
    def _haar(self) -> bool:
        return bool(pywt.Wavelet(self.wavelet).dec_len == 2)

    @property
    def _distinct_weights(self) -> set[float]:
        return {weight for weights in self.table for weight in weights.values()}

    def _plain_truth(self) -> str:
        factors = [f"{weight:g}" for weight in self._distinct_weights if weight != 1]
        factors += ["sigma^2"] * (self.target == "clean")
        factors += [f"min(SNR, {self.snr_cap:g})"] * (self.by_sigma == "min-snr")
        sizes = "" if self.mode == "zero" else f" (for sizes divisible by {2**self.levels})"
        return (
            f"this wavelet loss is plain mean squared error: {self.wavelet} with mode '{self.mode}' keeps energy, and "
            f"with equal weights and squared error it equals {' * '.join([*factors, 'MSE'])} of the velocity{sizes}. "
            "Leave weights at 'octave', or weight subbands differently, or choose penalty 'huber'"
        )


def _resolve(weights: Any, levels: int) -> Table:
    """Weights as the user gave them to one mapping a level, finest first."""
    if weights == "octave":
        return octave_weights(levels)
    given: Any = [{}] * levels if weights == "unit" else [weights] * levels if isinstance(weights, Mapping) else weights
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(w, Mapping) for w in given):
        raise ValueError(f"weights must be 'octave', 'unit', a mapping or a list of mappings, got {weights!r}")
    if len(given) != levels:
        raise ValueError(f"weights must have one mapping a level: levels is {levels}, got {len(given)} mappings")
    for level, mapping in enumerate(given, 1):
        _check_mapping(mapping, may_have_ll=level == levels or given is not weights)
    table = tuple(
        {name: float(mapping.get(name, 1.0)) for name in Subbands._fields if name != "LL" or level == levels}
        for level, mapping in enumerate(given, 1)
    )
    if not any(weight for mapping in table for weight in mapping.values()):
        raise ValueError("weights must not all be 0")
    return table


def _check_mapping(mapping: Mapping[str, Any], *, may_have_ll: bool) -> None:
    for name, weight in mapping.items():
        if name not in Subbands._fields:
            raise ValueError(f"weights has no subband {name!r}; there are {', '.join(Subbands._fields)}")
        if name == "LL" and not may_have_ll:
            raise ValueError("weights may name LL on the last level only; on the others it is split further")
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 <= weight < math.inf:
            raise ValueError(f"weight of {name} must be a finite number of at least 0, got {weight!r}")
