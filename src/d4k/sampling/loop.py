"""From prompts to pictures: the sampling loop of rectified flow over any backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import frozen
from torch import Tensor

from d4k.images import to_uint8
from d4k.models import computing_device, computing_dtype, holding_step_cache
from d4k.protocols import Backbone
from d4k.sampling.settings import check_size

__all__ = ["Callback", "SamplingStep", "sample", "sample_latents", "starting_noise"]


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
    *,
    steps: int,
    guidance: float,
    shift: float | None = None,
    negative_prompt: str = "",
    on_step: Callback | None = None,
    first: int = 0,
) -> Tensor:
    """Integrate the flow from noise to clean latents.

    Args:
        backbone: loaded.
        prompts: B prompts.
        noise: (B, C, h, w), see `starting_noise`.
        steps: of the scheduler.
        guidance: scale.
        shift: of the noise levels; None is what the checkpoint's scheduler says.
        negative_prompt: what classifier-free guidance steers away from.
        on_step: called after every step.
        first: index of the first prompt, handed to `on_step`.

    Returns:
        (B, C, h, w) clean latents on the backbone's device, float32: no step is lost in rounding.
    """
    module = backbone.trainable
    conditioning = backbone.encode_text(prompts, negative_prompt)
    downscale = backbone.latent.downscale
    scheduler = backbone.scheduler(steps, noise.shape[-2] * downscale, noise.shape[-1] * downscale, shift)
    scheduler.set_begin_index(0)  # it would look its place up by timestep, and rounded timesteps repeat
    levels = scheduler.sigmas[:-1].tolist()
    noisy, dtype = noise.to(computing_device(module), torch.float32), computing_dtype(module)
    with holding_step_cache(module):
        for done, (timestep, level) in enumerate(zip(scheduler.timesteps, levels, strict=True), 1):
            sigma = (timestep / 1000).to(noisy).expand(len(noisy))
            velocity = backbone.velocity(noisy.to(dtype), sigma, conditioning, guidance, done / len(levels)).float()
            before = noisy
            noisy = scheduler.step(velocity, timestep, noisy, return_dict=False)[0]
            if on_step is not None:
                on_step(SamplingStep(done, len(levels), first, level, noisy, before - level * velocity))
    return noisy


def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    width: int,
    height: int,
    steps: int,
    guidance: float,
    shift: float | None = None,
    negative_prompt: str = "",
    batch_size: int = 1,
    on_step: Callback | None = None,
) -> Iterator[Tensor]:
    """Draw one picture for each prompt and seed.

    Args:
        backbone: loaded.
        prompts: what to draw.
        seeds: one a prompt; a picture depends on its seed, not on its place or the batch size.
        width: pixels, a multiple of the backbone's granularity.
        height: likewise.
        steps: Euler steps.
        guidance: scale.
        shift: of the noise levels; None is what the checkpoint's scheduler says.
        negative_prompt: what classifier-free guidance steers away from.
        batch_size: pictures at a time.
        on_step: called after every step.

    Yields:
        (3, H, W) uint8 on the CPU, in the order of the prompts.

    Raises:
        ConfigError: the size does not suit the backbone.
    """
    check_size(backbone, width, height)
    module = backbone.trainable
    was_training = module.training
    module.eval()
    try:
        for start in range(0, len(prompts), batch_size):
            rows = slice(start, start + batch_size)
            latents = sample_latents(
                backbone,
                prompts[rows],
                starting_noise(backbone, seeds[rows], width, height),
                steps=steps,
                guidance=guidance,
                shift=shift,
                negative_prompt=negative_prompt,
                on_step=on_step,
                first=start,
            )
            for latent in latents:
                yield to_uint8(backbone.decode(latent[None])[0].float().cpu())
    finally:
        module.train(was_training)
