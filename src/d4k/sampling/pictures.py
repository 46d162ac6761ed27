"""Pictures with their recipes, in memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from PIL.Image import Image

from d4k.errors import ConfigError
from d4k.images import to_picture, to_tensor
from d4k.images.upscale import upscaler_settings
from d4k.models import LoadedModel
from d4k.plugins import create
from d4k.protocols import Backbone, Upscaler
from d4k.sampling.begin import Beginning, read_beginnings, sized_like
from d4k.sampling.choose import choose_settings, suggested_stages
from d4k.sampling.loop import Callback, Guide
from d4k.sampling.recipe import versions
from d4k.sampling.sample import Batch, sample_stages
from d4k.sampling.settings import SamplingSettings, settings_record
from d4k.sampling.sources import fit
from d4k.sampling.stages import Size

__all__ = ["generate_pictures", "make_recipe"]


def generate_pictures(
    backbone: Backbone,
    loaded: LoadedModel,
    prompt: str | Sequence[str],
    seed: int | Sequence[int],
    given: Mapping[str, Any],
    *,
    batch_size: int = 1,
    guide: Guide | None = None,
    on_step: Callback | None = None,
) -> Iterator[Image]:
    """Generate one picture for each prompt; see `d4k.Pipeline.generate`.

    Args:
        backbone: loaded.
        loaded: what is known of the model.
        prompt: one or several.
        seed: of every picture, or one for each.
        given: as `choose_settings` takes it, and `image`, see `d4k.sampling.begin`; what is not given is settled by
            the rule of precedence.
        batch_size: pictures at a time.
        guide: may change the clean estimate of each step.
        on_step: called after every step.

    Yields:
        RGB pictures, each with its recipe in `info["d4k"]`.

    Raises:
        ConfigError: a value does not suit the backbone.
        DataError: a picture to begin with cannot be read.
    """
    prompts, seeds = _pairs(prompt, seed)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if loaded.loading.step_cache and batch_size > 1:
        raise ConfigError("a step cache judges a batch as one picture: with step_cache, batch_size must be 1")
    begun = read_beginnings(given.get("image"), len(prompts))
    rest = {name: value for name, value in given.items() if name != "image"}
    chosen = _settle(backbone, loaded, rest, begun, len(prompts))
    upscaler = create("upscaler", chosen[0].upscaler, **chosen[0].upscaler_options)
    told = _told(chosen[0], upscaler, guide, begun=begun is not None)
    for rows in _alike(chosen, batch_size):
        settings = chosen[rows[0]]
        pictures = None
        if begun is not None:
            first = settings.stages[0]
            pictures = [to_tensor(fit(begun[row].picture, (first.width, first.height))) for row in rows]
        batch = Batch([prompts[row] for row in rows], [seeds[row] for row in rows], pictures, rows[0])
        *_, last = sample_stages(backbone, batch, settings, upscaler, guide=guide, on_step=on_step)
        for row, pixels in zip(rows, last, strict=True):
            picture = to_picture(pixels)
            begin = {} if begun is None else begun[row].record
            picture.info["d4k"] = {**make_recipe(loaded, prompts[row], seeds[row], settings), **told, **begin}
            yield picture


def _settle(
    backbone: Backbone, loaded: LoadedModel, given: Mapping[str, Any], begun: Sequence[Beginning] | None, count: int
) -> list[SamplingSettings]:
    """What each picture is sampled with. Each size is settled and checked once, before anything is computed."""
    if begun is None:
        settings = choose_settings(backbone, loaded.model, given)
        if words := suggested_stages(backbone, loaded.model, settings, given.get("stages")):
            warnings.warn(words, stacklevel=2)
        return [settings] * count
    settled: dict[Size, SamplingSettings] = {}
    for size in dict.fromkeys(one.picture.size for one in begun):
        like = sized_like(given, size, backbone.latent.granularity)
        settled[size] = choose_settings(backbone, loaded.model, like, image=True)
    return [settled[one.picture.size] for one in begun]


def _alike(chosen: Sequence[SamplingSettings], batch_size: int) -> Iterator[list[int]]:
    """Places of pictures that are sampled together: those that follow each other and have the same settings."""
    for _, places in groupby(range(len(chosen)), key=chosen.__getitem__):
        rows = list(places)
        yield from (rows[start : start + batch_size] for start in range(0, len(rows), batch_size))


def _told(settings: SamplingSettings, upscaler: Upscaler, guide: Guide | None, *, begun: bool) -> dict[str, Any]:
    """What recipes hold beside settings: of the upscaler what decides its pictures, and the name of a guide."""
    told: dict[str, Any] = {}
    if (begun or settings.earlier) and (said := upscaler_settings(upscaler)):
        told["upscaler_settings"] = said
    if guide is not None:
        named: Any = guide if hasattr(guide, "__qualname__") else type(guide)
        told["guide"] = f"{named.__module__}.{named.__qualname__}"
    return told


def make_recipe(loaded: LoadedModel, prompt: str, seed: int, settings: SamplingSettings) -> dict[str, Any]:
    """All that makes a picture what it is."""
    return {**loaded.recipe(prompt, seed, settings_record(settings)), "versions": versions()}


def _pairs(prompt: str | Sequence[str], seed: int | Sequence[int]) -> tuple[list[str], list[int]]:
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    seeds = [seed] * len(prompts) if isinstance(seed, int) else list(seed)
    if not prompts:
        raise ConfigError("no prompt was given")
    if len(prompts) == 1:
        prompts *= len(seeds)
    if len(prompts) != len(seeds):
        raise ConfigError(f"{len(prompts)} prompts, but {len(seeds)} seeds: give one seed, or one for each prompt")
    if any(not 0 <= number < 2**63 for number in seeds):
        raise ConfigError(f"seed must be between 0 and 2**63 - 1, got {seeds}")
    return prompts, seeds
