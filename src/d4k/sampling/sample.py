"""From prompts to pictures, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor

from d4k.images import to_float
from d4k.images.upscale import enlarge
from d4k.models import computing_device
from d4k.plugins import create
from d4k.protocols import Backbone, Upscaler
from d4k.sampling.alignment import Alignment
from d4k.sampling.loop import (
    Callback,
    Guide,
    SamplingStep,
    chained,
    decoded,
    sample_latents,
    schedule,
    starting_noise,
)
from d4k.sampling.settings import SamplingSettings

__all__ = ["Batch", "enlarged_latents", "sample", "sample_stages", "steps_of"]


@attrs.frozen(eq=False)
class Batch:
    """Pictures that are sampled together.

    Args:
        prompts: B prompts.
        seeds: one a prompt.
        pictures: (3, H, W) uint8 each, to begin with in place of noise; None begins with noise.
        first: index of the first prompt.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    pictures: Sequence[Tensor] | None = None
    first: int = 0


def sample(
    backbone: Backbone,
    prompts: Sequence[str],
    seeds: Sequence[int],
    settings: SamplingSettings,
    *,
    pictures: Sequence[Tensor] | None = None,
    batch_size: int = 1,
    on_step: Callback | None = None,
    guide: Guide | None = None,
) -> Iterator[Tensor]:
    """Generate one picture for each prompt and seed.

    Args:
        backbone: loaded.
        prompts: what the pictures show.
        seeds: one a prompt; a picture depends on its seed, not on its place or the batch size.
        settings: see `choose_settings`, which has checked the sizes.
        pictures: (3, H, W) uint8, one a prompt, to begin with in place of noise.
        batch_size: pictures at a time.
        on_step: called after every step.
        guide: may change the clean estimate of each step, after the alignment of `settings` has.

    Yields:
        (3, H, W) uint8 on the CPU, in the order of the prompts.

    Raises:
        D4KError: latents or pixels stopped being numbers.
    """
    upscaler = create("upscaler", settings.upscaler, **settings.upscaler_options)
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        batch = Batch(prompts[rows], seeds[rows], None if pictures is None else pictures[rows], start)
        *_, last = sample_stages(backbone, batch, settings, upscaler, on_step=on_step, guide=guide)
        yield from last


def sample_stages(
    backbone: Backbone,
    batch: Batch,
    settings: SamplingSettings,
    upscaler: Upscaler,
    *,
    on_step: Callback | None = None,
    guide: Guide | None = None,
) -> Iterator[list[Tensor]]:
    """Take a batch through its stages.

    The 8-bit pictures of a stage are all that the next one takes over, so that it can be gone on with from files.

    Args:
        backbone: loaded.
        batch: what is sampled.
        settings: with all stages.
        upscaler: enlarges the pictures between stages; make it once for many pictures, since it may read a network.
        on_step: called after every step.
        guide: may change the clean estimate of each step, after the alignment of `settings` has.

    Yields:
        After each stage its pictures, (3, H, W) uint8 on the CPU.

    Raises:
        D4KError: latents or pixels stopped being numbers.
    """
    # the schedules first: one that is refused costs nothing
    pictures, steps = batch.pictures, steps_of(backbone, settings, picture=batch.pictures is not None)
    module = backbone.trainable
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            conditioning = backbone.encode_text(batch.prompts, settings.negative_prompt)
        for place, stage in enumerate(settings.stages):
            clean = None if pictures is None else enlarged_latents(backbone, pictures, stage, upscaler)
            noise = starting_noise(backbone, batch.seeds, stage.width, stage.height)
            told = on_step and _counting(on_step, batch.first, steps, place)
            held = chained(_alignment(stage, clean), guide)
            latents = sample_latents(backbone, conditioning, noise, stage, clean=clean, guide=held, on_step=told)
            pictures = [decoded(backbone, latent) for latent in latents]
            yield pictures
    finally:
        module.train(was_training)


def _alignment(stage: SamplingSettings, clean: Tensor | None) -> Guide | None:
    """What holds a stage to the picture that it begins with; None where there is none or nothing is to hold it."""
    if clean is None or not stage.alignment:
        return None
    return Alignment(clean, restart=stage.restart, strength=stage.alignment, cutoff=stage.cutoff)


def steps_of(backbone: Backbone, settings: SamplingSettings, *, picture: bool = False) -> list[int]:
    """How often each stage asks the model.

    Args:
        backbone: loaded.
        settings: with all stages.
        picture: the first stage begins with a picture, too.
    """
    found = []
    for place, stage in enumerate(settings.stages):
        _, levels, begin = schedule(backbone, stage, restart=picture or place > 0)
        found.append(len(levels) - begin)
    return found


def _counting(on_step: Callback, first: int, steps: Sequence[int], place: int) -> Callback:
    """The callback of one stage, which tells of the steps of all."""

    def told(step: SamplingStep) -> None:
        done, counted = sum(steps[:place]) + step.step, sum(steps)
        on_step(attrs.evolve(step, step=done, steps=counted, first=first, stage=place + 1, stages=len(steps)))

    return told


@torch.no_grad()
def enlarged_latents(
    backbone: Backbone, pictures: Sequence[Tensor], stage: SamplingSettings, upscaler: Upscaler
) -> Tensor:
    """Pictures (3, H, W) uint8, enlarged to the size of a stage and encoded one by one: (B, C, h, w) float32.

    Raises:
        ConfigError: the upscaler returns pictures of another size, or values that are no numbers.
    """
    device = computing_device(backbone.trainable)
    found = []
    for picture in pictures:
        pixels = to_float(picture)[None].to(device)
        enlarged = enlarge(upscaler, stage.upscaler, pixels, stage.height, stage.width)
        found.append(backbone.encode_image(enlarged).float())
    return torch.cat(found)
