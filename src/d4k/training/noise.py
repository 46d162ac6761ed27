"""Which noise levels a run trains: those that sampling at its size will use, unless the settings say otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from d4k.config import FlowSettings, RunConfig
from d4k.errors import ConfigError
from d4k.flow import sample_sigma
from d4k.models import Model, first_said
from d4k.plugins import registry
from d4k.protocols import Backbone
from d4k.sampling import SCHEDULER

__all__ = ["deviations_of_run", "draw_sigma", "sampling_shift", "scheduler_shift", "training_shift"]

POINTS = 9


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

    With x shifted from t by a, 1 / x - 1 = (1 / t - 1) / a; that the first, middle and last t are equally spaced, and
    the first is 1, leaves one a.

    Args:
        sigmas: (N + 1,), falling from 1 to 0, N odd and at least 3.

    Raises:
        ConfigError: no shift of equally spaced levels gives these.

    >>> from d4k.flow import shift_sigma
    >>> round(scheduler_shift(torch.cat([shift_sigma(torch.linspace(1, 0.1, 9), 3.0), torch.zeros(1)])), 4)
    3.0
    """
    odds = 1 / sigmas[:-1].double().cpu() - 1
    middle, last = odds[len(odds) // 2].item(), odds[-1].item()
    shift = (last - 2 * middle) / (middle * last) if middle > 0 and last > 0 else 0.0
    spaced = 1 / (1 + shift * odds)
    if not shift > 0 or float((spaced.diff() - spaced.diff().mean()).abs().max()) > 1e-3:
        raise ConfigError(
            "the noise levels of the model's scheduler are no shift of equally spaced ones, so that training cannot "
            "take the same: give flow.shift a number"
        )
    return shift


def deviations_of_run(backbone: Backbone, model: Model, config: RunConfig, width: int, height: int) -> Iterator[str]:
    """What a run trains otherwise than the model was trained, or will be sampled, in words.

    Args:
        backbone: loaded.
        model: what is known of it.
        config: of the run.
        width: pixels of its pictures.
        height: likewise.
    """
    before = model.training
    for name, value in backbone.trained_options.items():
        if before.options.get(name, value) != value:
            yield f"{name} {value}, the model was trained with {before.options[name]}"
    if config.flow.guidance is not None and before.guidance not in (None, config.flow.guidance):
        yield f"guidance {config.flow.guidance:g}, the model was trained with {before.guidance:g}"
    seen = (before.width or width, before.height or height)
    if seen != (width, height):
        yield f"size {width}x{height}, the model was trained at {seen[0]}x{seen[1]}"
    if config.flow.shift is not None and width * height > backbone.defaults.size**2:
        shift, sampled = (
            training_shift(backbone, model, config.flow, width, height),
            sampling_shift(backbone, model, width, height),
        )
        if abs(shift - sampled) > 1e-3 and config.flow.recorded_shift is None:
            yield f"shift {shift:g}, sampling at this size takes {sampled:.3g}"
