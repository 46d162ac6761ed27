"""The sampling loop of rectified flow over any backbone: from noise, or a re-noised picture, to a clean latent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from d4k.errors import ConfigError, D4KError
from d4k.flow import velocity_from_clean
from d4k.images import to_uint8
from d4k.models import computing_device, computing_dtype, holding_step_cache
from d4k.protocols import Backbone, Conditioning
from d4k.sampling.settings import SamplingSettings
from d4k.sampling.stages import Stage

__all__ = [
    "Callback",
    "CleanEstimate",
    "Guide",
    "SamplingStep",
    "chained",
    "decoded",
    "first_step",
    "restart_of",
    "sample_latents",
    "schedule",
    "starting_noise",
]


@frozen(eq=False)
class SamplingStep:
    """Where a batch stands, for progress and previews.

    Args:
        step: steps done, from 1, in all stages.
        steps: steps in all stages.
        first: index of the batch's first prompt.
        sigma: noise level of `noisy` before this step.
        noisy: (B, C, h, w) float32, after this step.
        clean: (B, C, h, w) float32, what the model takes the picture for; `backbone.decode(clean)` is a preview.
        stage: of the picture, from 1.
        stages: of the picture.
    """

    step: int
    steps: int
    first: int
    sigma: float
    noisy: Tensor
    clean: Tensor
    stage: int = 1
    stages: int = 1


Callback = Callable[[SamplingStep], None]


@frozen(eq=False)
class CleanEstimate:
    """What the model takes the picture for, before a step is taken: what a guide may change.

    Args:
        step: the step that is about to be taken, from 1.
        steps: steps of this stage.
        sigma: noise level of `noisy`, in (0, 1].
        noisy: (B, C, h, w) float32.
        clean: (B, C, h, w) float32, `noisy - sigma * velocity`.
    """

    step: int
    steps: int
    sigma: float
    noisy: Tensor
    clean: Tensor


Guide = Callable[[CleanEstimate], Tensor]
"""Returns the clean estimate to go on with, (B, C, h, w); `estimate.clean` itself changes nothing, not by a bit.

It must not write into the tensors of the estimate: make new ones."""


def starting_noise(backbone: Backbone, seeds: Sequence[int], width: int, height: int) -> Tensor:
    """Starting noise, one CPU generator a picture, so that it depends on nothing but its seed and the size.

    Returns:
        (len(seeds), C, h, w) float32 on the CPU.
    """
    spec = backbone.latent
    shape = (1, spec.channels, height // spec.downscale, width // spec.downscale)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@torch.no_grad()
def sample_latents(
    backbone: Backbone,
    prompts: Sequence[str] | Conditioning,
    noise: Tensor,
    settings: SamplingSettings,
    *,
    clean: Tensor | None = None,
    guide: Guide | None = None,
    on_step: Callback | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Integrate the flow of one stage, from noise or from a picture that is re-noised, to clean latents.

    Args:
        backbone: loaded.
        prompts: B prompts; or, already encoded and on `device`, them and the negative prompt.
        noise: (B, C, h, w), see `starting_noise`.
        settings: see `choose_settings`; of them one stage counts.
        clean: (B, C, h, w), latents of the pictures to begin with, re-noised to `settings.restart`; None begins with
            noise alone, as a restart of 1 does.
        guide: may change the clean estimate of each step before the step is taken.
        on_step: called after every step.
        device: that computes, where it is not told by the module.

    Returns:
        (B, C, h, w) clean latents on the backbone's device, float32: no step is lost in rounding.

    Raises:
        ConfigError: there is no noise level to begin at or below `settings.restart`, or the guide returns no estimate.
        D4KError: latents stopped being numbers; the message names the step.
    """
    module = backbone.trainable
    # the scheduler first: one that is refused costs nothing
    scheduler, levels, begin = schedule(backbone, settings, restart=clean is not None)
    conditioning = prompts
    if not isinstance(conditioning, Conditioning):
        conditioning = backbone.encode_text(conditioning, settings.negative_prompt)
    scheduler.set_begin_index(begin)  # it would look its place up by timestep, and rounded timesteps repeat
    noisy, dtype = noise.to(device or computing_device(module), torch.float32), computing_dtype(module)
    if clean is not None and settings.restart < 1:
        noisy = (1 - levels[begin]) * clean.to(noisy) + levels[begin] * noisy
    todo, guide = len(levels) - begin, guide or _free
    with holding_step_cache(module):
        for done, (timestep, level) in enumerate(zip(scheduler.timesteps[begin:], levels[begin:], strict=True), 1):
            sigma, at = (timestep / 1000).to(noisy).expand(len(noisy)), (begin + done) / len(levels)
            velocity = backbone.velocity(noisy.to(dtype), sigma, conditioning, settings.guidance, at).float()
            estimate = CleanEstimate(done, todo, level, noisy, noisy - level * velocity)
            chosen = _guided(guide, estimate)
            if chosen is not estimate.clean:
                velocity = velocity_from_clean(noisy, chosen, torch.full_like(sigma, level))
            noisy = scheduler.step(velocity, timestep, noisy, return_dict=False)[0]
            if not torch.isfinite(noisy).all():
                raise D4KError(
                    f"sampling gave values that are no numbers at step {done} of {todo}, with guidance "
                    f"{settings.guidance:g} and shift {settings.shift}; give a smaller guidance, or dtype 'float32' or "
                    "'bfloat16'. If that does not help, the weights of the model or of an adapter are damaged"
                )
            if on_step is not None:
                on_step(SamplingStep(done, todo, 0, level, noisy, chosen))
    return noisy


def _free(estimate: CleanEstimate) -> Tensor:
    """The guide that changes nothing."""
    return estimate.clean


def _guided(guide: Guide, estimate: CleanEstimate) -> Tensor:
    """The estimate that a guide chooses, float32; a guide that returns none is refused where it is seen."""
    chosen, clean = guide(estimate), estimate.clean
    if not isinstance(chosen, Tensor) or chosen.shape != clean.shape:
        got = tuple(chosen.shape) if isinstance(chosen, Tensor) else type(chosen).__name__
        raise ConfigError(
            f"a guide must return a clean estimate of the shape {tuple(clean.shape)}, got {got}; return estimate.clean "
            "to change nothing"
        )
    if chosen is not clean and not torch.isfinite(chosen).all():
        raise ConfigError(f"a guide returned values that are no numbers before step {estimate.step}; correct the guide")
    return chosen.to(clean)


def chained(first: Guide | None, second: Guide | None) -> Guide | None:
    """A guide that asks two, the second of which is shown what the first one chose.

    Args:
        first: of the two.
        second: of the two; where one is None, the other alone is meant.
    """
    if first is None or second is None:
        return first or second
    before, after = first, second

    def guide(estimate: CleanEstimate) -> Tensor:
        chosen = _guided(before, estimate)
        return after(estimate if chosen is estimate.clean else evolve(estimate, clean=chosen))

    return guide


def schedule(backbone: Backbone, settings: Stage, *, restart: bool) -> tuple[Any, list[float], int]:
    """A fresh scheduler for one stage, its noise levels without the 0 at the end, and the place of the first to use.

    Args:
        backbone: loaded.
        settings: of the stage.
        restart: whether it begins with a picture, at `settings.restart`.

    Raises:
        ConfigError: there is no noise level to begin at, or no schedule.
    """
    scheduler = backbone.scheduler(settings.steps, settings.height, settings.width, settings.scheduler_shift)
    levels = scheduler.sigmas[:-1].tolist()
    _check_levels(levels, settings)
    order = getattr(scheduler, "order", 1)
    return scheduler, levels, first_step(levels, settings.restart, order) if restart else 0


def restart_of(backbone: Backbone, settings: Stage, strength: float) -> float:
    """The restart that begins where diffusers' image-to-image begins: after `steps - strength * steps` steps.

    Args:
        backbone: loaded.
        settings: of the stage.
        strength: share of the steps that are taken, in (0, 1].

    Raises:
        ConfigError: no step is left.
    """
    steps = settings.steps
    scheduler, levels, _ = schedule(backbone, settings, restart=False)
    place = int(max(steps - min(steps * strength, steps), 0)) * getattr(scheduler, "order", 1)
    if place >= len(levels):
        raise ConfigError(f"strength {strength:g} leaves none of {steps} steps to take; give a higher one")
    return levels[place]


def first_step(levels: Sequence[float], restart: float, order: int = 1) -> int:
    """Place of the noise level that a picture is re-noised to: the first at or below `restart`.

    Args:
        levels: of the schedule, falling, without the 0 at its end.
        restart: in (0, 1].
        order: of the solver, which asks the model so often a step; a step cannot be begun in its middle.

    Raises:
        ConfigError: all levels are above.

    >>> first_step([1.0, 0.8, 0.5], 0.8), first_step([1.0, 0.8, 0.5], 0.7)
    (1, 2)
    """
    for place in range(0, len(levels), order):
        if levels[place] <= restart + 1e-6:
            return place
    raise ConfigError(
        f"restart {restart:g} leaves no step to take: the last noise level of this schedule is {levels[-1]:.3f}; give "
        "a higher restart, or more steps"
    )


def _check_levels(levels: Sequence[float], settings: Stage) -> None:
    if not all(0 <= level <= 1 for level in levels) or len(set(levels)) < min(2, len(levels)):
        raise ConfigError(
            f"shift {settings.shift} leaves no noise levels between 0 and 1 to step through; values from 0.1 to 30 are "
            "usual, and 1 changes nothing"
        )


def decoded(backbone: Backbone, latent: Tensor) -> Tensor:
    """One clean latent (C, h, w) as a picture, (3, H, W) uint8 on the CPU.

    Raises:
        D4KError: pixels are no numbers.
    """
    pixels = backbone.decode(latent[None])[0].float().cpu()
    if not torch.isfinite(pixels).all():
        raise D4KError(
            "decoding gave values that are no numbers: load the model with dtype 'float32' or 'bfloat16'; if that does "
            "not help, its autoencoder is damaged"
        )
    return to_uint8(pixels)
