"""From prompts to pictures: the sampling loop of rectified flow over any backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import frozen
from torch import Tensor

from d4k.errors import ConfigError, D4KError
from d4k.images import to_uint8
from d4k.models import computing_device, computing_dtype, holding_step_cache
from d4k.protocols import Backbone, Conditioning
from d4k.sampling.settings import SamplingSettings

__all__ = ["Callback", "SamplingStep", "decoded", "sample", "sample_latents", "starting_noise"]


@frozen(eq=False)
class SamplingStep:
    """Where a batch stands, for progress and previews.

    Args:
        step: steps done, from 1.
        steps: steps in all.
        first: index of the batch's first prompt.
        sigma: noise level of `noisy` before this step.
        noisy: (B, C, h, w) float32, after this step.
        clean: (B, C, h, w) float32, what the model takes the picture for; `backbone.decode(clean)` is a preview.
    """

    step: int
    steps: int
    first: int
    sigma: float
    noisy: Tensor
    clean: Tensor


Callback = Callable[[SamplingStep], None]


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
    prompts: Sequence[str],
    noise: Tensor,
    settings: SamplingSettings,
    *,
    on_step: Callback | None = None,
    first: int = 0,
    conditioning: Conditioning | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Integrate the flow from noise to clean latents.

    Args:
        backbone: loaded.
        prompts: B prompts.
        noise: (B, C, h, w), see `starting_noise`.
        settings: see `choose_settings`.
        on_step: called after every step.
        first: index of the first prompt, handed to `on_step`.
        conditioning: of the prompts and the negative prompt, on `device`; None encodes them.
        device: that computes, where it is not told by the module.

    Returns:
        (B, C, h, w) clean latents on the backbone's device, float32: no step is lost in rounding.

    Raises:
        D4KError: latents stopped being numbers; the message names the step.
    """
    module = backbone.trainable
    # the scheduler first: one that is refused costs nothing
    scheduler = backbone.scheduler(settings.steps, settings.height, settings.width, settings.scheduler_shift)
    if conditioning is None:
        conditioning = backbone.encode_text(prompts, settings.negative_prompt)
    scheduler.set_begin_index(0)  # it would look its place up by timestep, and rounded timesteps repeat
    levels = scheduler.sigmas[:-1].tolist()
    _check_levels(levels, settings)
    noisy, dtype = noise.to(device or computing_device(module), torch.float32), computing_dtype(module)
    with holding_step_cache(module):
        for done, (timestep, level) in enumerate(zip(scheduler.timesteps, levels, strict=True), 1):
            sigma = (timestep / 1000).to(noisy).expand(len(noisy))
            at = done / len(levels)
            velocity = backbone.velocity(noisy.to(dtype), sigma, conditioning, settings.guidance, at).float()
            before = noisy
            noisy = scheduler.step(velocity, timestep, noisy, return_dict=False)[0]
            if not torch.isfinite(noisy).all():
                raise D4KError(
                    f"sampling gave values that are no numbers at step {done} of {len(levels)}, with guidance "
                    f"{settings.guidance:g} and shift {settings.shift}; give a smaller guidance, or dtype 'float32' or "
                    "'bfloat16'. If that does not help, the weights of the model or of an adapter are damaged"
                )
            if on_step is not None:
                on_step(SamplingStep(done, len(levels), first, level, noisy, before - level * velocity))
    return noisy


def _check_levels(levels: Sequence[float], settings: SamplingSettings) -> None:
    if not all(0 <= level <= 1 for level in levels) or len(set(levels)) < min(2, len(levels)):
        raise ConfigError(
            f"shift {settings.shift} leaves no noise levels between 0 and 1 to step through; values from 0.1 to 30 are "
            "usual, and 1 changes nothing"
        )


def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    batch_size: int = 1,
    on_step: Callback | None = None,
) -> Iterator[Tensor]:
    """Generate one picture for each prompt and seed.

    Args:
        backbone: loaded.
        prompts: what the pictures show.
        seeds: one a prompt; a picture depends on its seed, not on its place or the batch size.
        settings: see `choose_settings`, which has checked the size.
        batch_size: pictures at a time.
        on_step: called after every step.

    Yields:
        (3, H, W) uint8 on the CPU, in the order of the prompts.

    Raises:
        D4KError: latents or pixels stopped being numbers.
    """
    module = backbone.trainable
    was_training = module.training
    module.eval()
    try:
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            noise = starting_noise(backbone, seeds[rows], settings.width, settings.height)
            latents = sample_latents(backbone, prompts[rows], noise, settings, on_step=on_step, first=start)
            for latent in latents:
                yield decoded(backbone, latent)
    finally:
        module.train(was_training)


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
