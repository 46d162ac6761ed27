"""A robust loss in wavelet space, weighted by the ratio of signal to noise, as UltraFlux trains."""

from __future__ import annotations

from functools import cached_property

from attrs import field, frozen
from torch import Tensor

from d4k import FlowStep
from d4k_wavelet.checks import is_count, is_discrete, is_positive, one_of
from d4k_wavelet.loss import WaveletLoss, Weights
from d4k_wavelet.transform import Mode

__all__ = ["WaveletHuberLoss"]


@frozen(kw_only=True, slots=False)
class WaveletHuberLoss:
    """The Huber penalty on wavelet coefficients of the clean estimate, weighted by the capped ratio of signal to noise.

    The error of the clean estimate is sigma times that of the velocity. So at high noise levels most coefficients lie
    beyond `delta`, where all pull alike and single large ones do not drown the fine subbands; at low noise levels they
    lie below it, where the loss is mean squared error. The weight, min(SNR, snr_cap), keeps the high noise levels from
    ruling the gradient. This is `WaveletLoss` with penalty "huber" and by_sigma "min-snr", and other defaults.

    d4k's reading: UltraFlux names the parts (Huber, wavelet, SNR); `delta` and `snr_cap` are the usual values of the
    two papers below, and subbands weigh alike, so that what the penalty does is not mixed with what weights do.

    Args:
        wavelet: a discrete wavelet of PyWavelets, orthogonal or biorthogonal.
        levels: how often LL is split again, at least 1.
        weights: of subbands, as of `WaveletLoss`.
        mode: what lies beyond the border, as of `WaveletLoss`.
        delta: size of a coefficient where the penalty turns from square to straight, above 0.
        snr_cap: largest weight, see `capped_snr`, above 0.

    Raises:
        ValueError: an option is out of range; the sentence names what is allowed.

    Source: Ye et al., "UltraFlux", arXiv 2511.18050. For snr_cap: Hang et al., arXiv 2303.09556. For delta: Khrapov et
    al., "Improving Diffusion Models's Data-Corruption Resistance using Scheduled Pseudo-Huber Loss", arXiv 2403.16728.
    """

    wavelet: str = field(default="haar", validator=is_discrete)
    levels: int = field(default=1, validator=is_count)
    weights: Weights = field(default="unit")
    mode: Mode = field(default="zero", validator=one_of(Mode))
    delta: float = field(default=0.1, validator=is_positive)
    snr_cap: float = field(default=5.0, validator=is_positive)

    def __attrs_post_init__(self) -> None:
        self._loss  # noqa: B018  a mistake in the weights shows when the loss is made

    @cached_property
    def _loss(self) -> WaveletLoss:
        return WaveletLoss(
            wavelet=self.wavelet,
            levels=self.levels,
            weights=self.weights,
            mode=self.mode,
            penalty="huber",
            delta=self.delta,
            by_sigma="min-snr",
            snr_cap=self.snr_cap,
        )

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
        return self._loss(velocity, step)
