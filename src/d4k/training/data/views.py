"""How the pictures of a run are cut, all the ways that a cache keeps, and where that cache lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from d4k.config import DataSettings, RunConfig
from d4k.errors import ConfigError
from d4k.images import Crop
from d4k.seeds import numbered_seed
from d4k.training.data.pictures import Bucket, Chosen
from d4k.training.data.source import View

__all__ = ["CACHE", "cache_folder", "captions", "held_out_views", "is_fixed", "trained_view", "views"]

CACHE = "d4k-cache"
"""Name of the folder of a cache that is not named."""


def is_fixed(data: DataSettings) -> bool:
    """Whether a picture is cut alike in every epoch."""
    return data.crop == "center" and not data.flip


def cache_folder(config: RunConfig) -> Path | None:
    """Where a run keeps latents and text; None where it encodes them anew at every step.

    Raises:
        ConfigError: a folder is named, and the pictures are cut otherwise in every epoch.
    """
    data = config.data
    if data.cache == "off":
        return None
    endless = not is_fixed(data) and data.crops is None
    if data.cache == "auto":
        return None if endless else Path(config.output_dir).parent / CACHE
    if endless:
        what = "data.crop = 'random'" if data.crop == "random" else "data.flip = true"
        raise ConfigError(
            f"{what} cuts each picture otherwise in every epoch, so that data.cache = '{data.cache}' would be of no "
            "use: set data.crops = K to keep K cuts of each picture, or data.cache = 'off'"
        )
    return Path(data.cache)


def trained_view(chosen: Chosen, bucket: Bucket, index: int, epoch: int, config: RunConfig) -> View:
    """How a picture is cut when it is trained on.

    Args:
        chosen: pictures of the run.
        bucket: of the picture.
        index: of the picture in the dataset.
        epoch: how often it was trained on before.
        config: of the run.

    Returns:
        With `data.crops` one of so many views, the same in runs of other seeds.
    """
    data = config.data
    crop = Crop(bucket.height, bucket.width, position=data.crop, flip=data.flip)
    if is_fixed(data):
        return View(index, crop)
    if data.crops is None:
        return View(index, crop, numbered_seed(config.seed, "crop", epoch * len(chosen.dataset) + index))
    return View(index, crop, numbered_seed(0, f"crop {chosen.dataset[index].id}", epoch % data.crops))


def held_out_views(chosen: Chosen) -> list[View]:
    """How the pictures that are held out are cut: each in its middle."""
    return [View(index, Crop(bucket.height, bucket.width)) for bucket in chosen.buckets for index in bucket.held_out]


def views(chosen: Chosen, config: RunConfig) -> Iterator[View]:
    """All views that a run with a cache asks for: those that are trained, then those that are held out.

    Args:
        chosen: pictures of the run.
        config: of the run; random cuts need `data.crops`.
    """
    for bucket in chosen.buckets:
        for index in bucket.pictures:
            for variant in range(1 if is_fixed(config.data) else config.data.crops or 1):
                yield trained_view(chosen, bucket, index, variant, config)
    yield from held_out_views(chosen)


def captions(chosen: Chosen, config: RunConfig) -> list[str]:
    """All captions that a run asks for, each once: those of its pictures, and the empty one where some are dropped."""
    found = {
        chosen.dataset[index].caption: None
        for bucket in chosen.buckets
        for index in (*bucket.pictures, *bucket.held_out)
    }
    if config.training.caption_dropout > 0:
        found[""] = None
    return list(found)
