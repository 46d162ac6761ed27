"""Pictures with their recipes, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL.Image import Image

from d4k.errors import ConfigError
from d4k.images import to_picture
from d4k.models import LoadedModel
from d4k.protocols import Backbone
from d4k.sampling.choose import choose_settings
from d4k.sampling.loop import Callback
from d4k.sampling.recipe import versions
from d4k.sampling.sample import sample
from d4k.sampling.settings import SamplingSettings, settings_record

__all__ = ["generate_pictures", "make_recipe"]


def generate_pictures(
    backbone: Backbone,
    loaded: LoadedModel,
    prompt: str | Sequence[str],
    seed: int | Sequence[int],
    given: Mapping[str, Any],
    *,
    batch_size: int = 1,
    on_step: Callback | None = None,
) -> Iterator[Image]:
    """Generate one picture for each prompt; see `d4k.Pipeline.generate`.

    Args:
        backbone: loaded.
        loaded: what is known of the model.
        prompt: one or several.
        seed: of every picture, or one for each.
        given: fields of `SamplingSettings`; what is not given is settled by the rule of precedence.
        batch_size: pictures at a time.
        on_step: called after every step.

    Yields:
        RGB pictures, each with its recipe in `info["d4k"]`.

    Raises:
        ConfigError: a value does not suit the backbone.
    """
    prompts, seeds = _pairs(prompt, seed)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if loaded.loading.step_cache and batch_size > 1:
        raise ConfigError("a step cache judges a batch as one picture: with step_cache, batch_size must be 1")
    settings = choose_settings(backbone, loaded.model, given)
    found = sample(backbone, prompts, seeds, settings, batch_size=batch_size, on_step=on_step)
    for pixels, text, number in zip(found, prompts, seeds, strict=True):
        picture = to_picture(pixels)
        picture.info["d4k"] = make_recipe(loaded, text, number, settings)
        yield picture


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
