"""Which noise levels a run trains: those that sampling at its size will use, unless the settings say otherwise."""

from __future__ import annotations

from math import isclose

import torch
from attrs import evolve
from torch import Tensor

from d4k.config import FlowSettings
from d4k.errors import ConfigError
from d4k.flow import sample_sigma
from d4k.models import Model, Training, first_said
from d4k.plugins import registry
from d4k.protocols import Backbone
from d4k.sampling import SCHEDULER

__all__ = ["draw_sigma", "lasting_shift", "sampling_shift", "scheduler_shift", "training_shift"]

POINTS = 9
SAME = 1e-3
"""Shifts that differ by less than this share are one: a scheduler's is read off levels in float32."""


def draw_sigma(flow: FlowSettings, shift: float, generator: torch.Generator) -> Tensor:
    """The noise level of one sample, (1,) float32.

    Args:
        flow: settings of the run.
        shift: at the size of the sample, see `training_shift`.
        generator: on the CPU.
    """
    return sample_sigma(
        1,
        density=flow.density,
        mean=flow.mean,
        std=flow.std,
        mode_scale=flow.mode_scale,
        alpha=flow.alpha,
        beta=flow.beta,
        shift=shift,
        generator=generator,
    )


def training_shift(backbone: Backbone, model: Model, flow: FlowSettings, width: int, height: int) -> float:
    """The shift of the noise levels that a run trains at some size.

    Args:
        backbone: loaded.
        model: what is known of it.
        flow: settings of the run: a number counts as it is, "auto" is `sampling_shift`, and None is "auto" above the
            size that the model was trained at, and 1 otherwise.
        width: pixels.
        height: pixels.

    Raises:
        ConfigError: the shift of the model's scheduler cannot be told.
    """
    if isinstance(flow.shift, int | float):
        return float(flow.shift)
    if flow.shift is None and width * height <= backbone.defaults.size**2:
        return 1.0
    return sampling_shift(backbone, model, width, height)


def sampling_shift(backbone: Backbone, model: Model, width: int, height: int) -> float:
    """The shift that a picture of this size is sampled with when nobody says another.

    The model's own record counts first, then what its authors sample with, the preset of the size, and the scheduler.
    """
    preset = registry().preset(model.backbone, width, height, downscale=backbone.latent.downscale)
    usual = {} if preset is None else {"shift": preset.shift}
    shift = first_said(model.training.sampling, model.registered, usual).get("shift", SCHEDULER)
    if shift != SCHEDULER:
        return float(shift)
    return scheduler_shift(backbone.scheduler(POINTS, height, width).sigmas)


def scheduler_shift(sigmas: Tensor) -> float:
    """The shift that made a schedule of noise levels which were equally spaced before it.

    A level x that was t before the shift a has 1 / x - 1 = (1 / t - 1) / a, the odds o of no noise. That the first, the
    middle and the last t = 1 / (1 + a o) are equally spaced leaves one a; then all others must be, too.

    Args:
        sigmas: falling from about 1 to 0; an odd number of distinct ones, at least 3, beside the 0. Solvers that ask
            twice repeat them.

    Raises:
        ConfigError: no shift of equally spaced levels gives these.

    >>> from d4k.flow import shift_sigma
    >>> round(scheduler_shift(torch.cat([shift_sigma(torch.linspace(1, 0.1, 9), 3.0), torch.zeros(1)])), 4)
    3.0
    """
    levels: Tensor = torch.unique_consecutive(sigmas[:-1].double().cpu())
    odds = 1 / levels - 1
    first, middle, last = odds[0].item(), odds[len(odds) // 2].item(), odds[-1].item()
    below = middle * (first + last) - 2 * first * last
    shift = (first + last - 2 * middle) / below if below > 0 else 0.0
    spaced = 1 / (1 + shift * odds)
    if not shift > 0 or float((spaced.diff() - spaced.diff().mean()).abs().max()) > 1e-3:
        raise ConfigError(
            "the noise levels of the model's scheduler are no shift of equally spaced ones, so that training cannot "
            "take the same: give flow.shift a number"
        )
    return shift


def lasting_shift(backbone: Backbone, model: Model, flow: FlowSettings, width: int, height: int) -> float | None:
    """The shift to keep beside what a run trains, so that sampling takes the one it was trained with.

    Args:
        backbone: loaded.
        model: what was known of the model before.
        flow: settings of the run.
        width: pixels.
        height: pixels.

    Returns:
        A number that the settings say, other than 1; one that the model's own record, or its authors, made "auto" take;
        None where sampling takes the same without being told, or where none was taken.
    """
    if isinstance(flow.shift, int | float):
        return flow.recorded_shift
    shift = training_shift(backbone, model, flow, width, height)
    if flow.shift is None and shift == 1:
        return None
    untold = sampling_shift(backbone, evolve(model, training=Training(), registered={}), width, height)
    return None if isclose(shift, untold, rel_tol=SAME) else shift
