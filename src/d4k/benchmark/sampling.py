"""The pictures of a model: at the size of the benchmark, and at its own size and then enlarged."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field, frozen
from PIL.Image import Image

from d4k.adapters import load_model
from d4k.benchmark.entrants import Entrant
from d4k.images import open_picture, to_float, to_picture, to_tensor, to_uint8
from d4k.images.upscale import enlarge
from d4k.models import Loading, ModelRef
from d4k.plugins import create
from d4k.protocols import Backbone, Upscaler
from d4k.sampling import (
    Callback,
    Job,
    SamplingSettings,
    SamplingStep,
    generate_into,
    name_files,
    sample,
    settings_from,
    settings_record,
    versions,
)

__all__ = ["OWN_SIZE", "PICTURES", "Enlarging", "LazyModel", "enlarge_pictures", "sample_pictures"]

PICTURES = "pictures"
"""Folder of the pictures that are measured, below that of a row."""

OWN_SIZE = "own-size"
"""Folder of the pictures as a model samples them at its own size, beside those that were enlarged from them."""


@define
class LazyModel:
    """A model that is loaded when it is first asked for a picture: where all of them are there, it never is.

    Args:
        ref: which model.
        loading: how.
    """

    ref: ModelRef
    loading: Loading
    backbone: Backbone | None = field(init=False, default=None)

    def __call__(self, recipe: Mapping[str, Any], on_step: Callback) -> Image:
        """Sample the picture of a recipe."""
        if self.backbone is None:
            self.backbone, _ = load_model(self.ref, self.loading)
        settings = settings_from(recipe)
        return to_picture(next(sample(self.backbone, [recipe["prompt"]], [recipe["seed"]], settings, on_step=on_step)))

    def free(self) -> None:
        """Give its memory back."""
        self.backbone = None
        if torch.cuda.is_available():
            gc.collect()  # a model may hold itself in a circle, and Python is in no hurry with these
            torch.cuda.empty_cache()


def sample_pictures(
    folder: Path, entrant: Entrant, settings: SamplingSettings, jobs: Sequence[Job], model: LazyModel, on_step: Callback
) -> None:
    """Sample what is missing of this process's share of the pictures of a model.

    Args:
        folder: for the pictures and their index.
        entrant: the model.
        settings: what it samples with.
        jobs: all pictures, each with its seed.
        model: samples them.
        on_step: called after every step.

    Raises:
        OutputError: the folder holds other pictures, or cannot be written.
    """

    def recipe(job: Job) -> Mapping[str, Any]:
        assert job.seed is not None
        return entrant.recipe(settings, job.prompt, job.seed)

    generate_into(folder, jobs, recipe, model, on_step=on_step)


@frozen
class Enlarging:
    """How pictures are enlarged.

    Args:
        upscaler: registered name.
        options: of the upscaler.
        width: of the results in pixels.
        height: likewise.
        device: that computes.
        settings: what decides the pictures beside the options, such as the digest of weights.
    """

    upscaler: str
    options: Mapping[str, Any]
    width: int
    height: int
    device: torch.device
    settings: Mapping[str, Any] = field(factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """What the recipe of an enlarged picture says of it, beside the size."""
        found = {"upscaler": self.upscaler, "upscaler_options": dict(self.options)}
        return found | ({"upscaler_settings": dict(self.settings)} if self.settings else {})

    def __call__(self, picture: Image, upscaler: Upscaler) -> Image:
        """Enlarge a picture until it covers the size, and cut the centre out."""
        scale = max(self.width / picture.width, self.height / picture.height)
        width, height = (round(side * scale) for side in picture.size)
        pixels = to_float(to_tensor(picture))[None].to(self.device)
        enlarged = enlarge(upscaler, self.upscaler, pixels, height, width)
        left, top = (width - self.width) // 2, (height - self.height) // 2
        cut = to_uint8(enlarged[0, :, top : top + self.height, left : left + self.width].cpu())
        return to_picture(cut)


def enlarge_pictures(
    folder: Path, entrant: Entrant, settings: SamplingSettings, jobs: Sequence[Job], how: Enlarging, on_step: Callback
) -> None:
    """Enlarge what is missing of this process's share of the pictures in the folder `OWN_SIZE` beside `folder`.

    Args:
        folder: for the enlarged pictures and their index.
        entrant: the model that sampled them.
        settings: what it sampled them with.
        jobs: all pictures.
        how: they are enlarged.
        on_step: called after every picture.

    Raises:
        OutputError: the folder holds other pictures, or cannot be written.
        DataError: a picture cannot be read.
    """
    files = {(target.job.prompt, target.job.seed): target.file.name for target in name_files(folder, jobs)}
    made: list[Upscaler] = []

    def recipe(job: Job) -> Mapping[str, Any]:
        assert job.seed is not None
        small = entrant.loaded.recipe(job.prompt, job.seed, settings_record(settings))
        return {
            "prompt": job.prompt,
            "seed": job.seed,
            "width": how.width,
            "height": how.height,
            "enlarged": small | how.record,
            "versions": versions(),
        }

    def enlarge(wanted: Mapping[str, Any], tick: Callback) -> Image:
        if not made:
            made.append(create("upscaler", how.upscaler, **how.options))
        source = folder.parent / OWN_SIZE / files[wanted["prompt"], wanted["seed"]]
        picture = how(open_picture(source), made[0])
        nothing = torch.empty(0)
        tick(SamplingStep(1, 1, 0, 0.0, nothing, nothing))
        return picture

    generate_into(folder, jobs, recipe, enlarge, on_step=on_step)
