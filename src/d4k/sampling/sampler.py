"""Jobs into pictures on disk: what each one's recipe is, and how a recipe becomes a picture, stage by stage."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image

from d4k.images import to_float, to_picture, to_tensor, to_uint8
from d4k.images.upscale import enlarge, upscaler_settings
from d4k.models import LoadedModel, refuse_large_picture
from d4k.plugins import create
from d4k.protocols import Backbone, Upscaler
from d4k.sampling.choose import choose_settings, suggested_stages
from d4k.sampling.folder import generate_into
from d4k.sampling.jobs import Job, fill_jobs
from d4k.sampling.kept import Course
from d4k.sampling.loop import Callback, SamplingStep
from d4k.sampling.pictures import make_recipe
from d4k.sampling.progress import Planned
from d4k.sampling.recipe import versions
from d4k.sampling.sample import Batch, sample_stages, steps_of
from d4k.sampling.settings import SamplingSettings, settings_from, settings_record
from d4k.sampling.sources import Sources, fitted, warn_of_cut
from d4k.sampling.stages import Size

__all__ = ["Enlarger", "Into", "enlarge_jobs", "generate_jobs"]

OF_JOBS = ("seed", "image")
"""What is given for jobs that have none of their own, and is no setting."""


@attrs.frozen
class Into:
    """Where pictures go, and who is told.

    Args:
        output: a folder that is new, empty, or of an earlier call; or for one job a new picture file.
        keep_stages: leave the finished stages beside the pictures.
        on_step: called after every step.
        on_picture: called with each file that was written.
    """

    output: Path
    keep_stages: bool = False
    on_step: Callback | None = None
    on_picture: Callable[[Path], None] | None = None


def generate_jobs(
    into: Into, backbone: Backbone, loaded: LoadedModel, jobs: Sequence[str | Job], given: Mapping[str, Any]
) -> list[Path]:
    """Generate what is missing in a folder; see `d4k.Pipeline.generate_to`.

    Args:
        into: where the pictures go.
        backbone: loaded.
        loaded: what is known of the model.
        jobs: prompts, or jobs with a seed, a size, a negative prompt or a picture of their own.
        given: as of `generate_pictures`, and `seed` and `image`, for the jobs that have none of their own.

    Raises:
        ConfigError: a value does not suit the backbone.
        DataError: a picture to begin with cannot be read.
        OutputError: the folder holds other pictures, or some of other settings, or cannot be written.
    """
    sampler = Sampler(backbone, loaded, jobs, given)
    if into.keep_stages and not sampler.staged:
        warnings.warn("no stage is kept: each picture is sampled in one; ask for several with stages", stacklevel=2)
    return generate_into(
        into.output, sampler.jobs, sampler.recipe, sampler, plan=sampler.plan, keep_stages=into.keep_stages,
        on_step=into.on_step, on_picture=into.on_picture,
    )  # fmt: skip


def enlarge_jobs(into: Into, jobs: Sequence[Job], enlarger: Enlarger) -> list[Path]:
    """Enlarge what is missing in a folder, without any model.

    Args:
        into: where the pictures go.
        jobs: each with a seed, a size and a picture.
        enlarger: which upscaler does it.

    Raises:
        ConfigError: there is no such upscaler, it has no such option, or there is too little memory.
        DataError: a picture cannot be read.
        OutputError: the folder holds other pictures, or some of other settings, or cannot be written.
    """
    for width, height in dict.fromkeys((job.width, job.height) for job in jobs):
        assert width is not None
        assert height is not None
        refuse_large_picture(width, height, enlarger.device)
    upscalers, sources = Upscalers(), Sources()
    described = upscalers.record(enlarger.upscaler, enlarger.options)
    same = {"upscaler": enlarger.upscaler, "upscaler_options": dict(enlarger.options), **described}

    def recipe(job: Job) -> dict[str, Any]:
        own = {"prompt": job.prompt, "seed": job.seed, "width": job.width, "height": job.height}
        return own | same | sources.record(job) | {"versions": versions()}

    def enlarge(wanted: Mapping[str, Any], course: Course) -> Image.Image:
        size = (wanted["width"], wanted["height"])
        begin = fitted(wanted, size)
        assert begin is not None
        picture = enlarger(upscalers(enlarger.upscaler, enlarger.options), begin, size)
        nothing = torch.empty(0)
        course(SamplingStep(1, 1, 0, 0.0, nothing, nothing))
        return picture

    return generate_into(
        into.output, jobs, recipe, enlarge, plan=lambda wanted: [Planned(wanted["width"], wanted["height"], 1)],
        on_step=into.on_step, on_picture=into.on_picture,
    )  # fmt: skip


class Upscalers:
    """Makes upscalers, the same one only once in a row: a network is not read for every picture."""

    def __init__(self) -> None:
        self._asked: object = None
        self._made: Any = None

    def __call__(self, name: str, options: Mapping[str, Any]) -> Upscaler:
        """The upscaler of a name, with options."""
        if self._asked != (name, options):
            self._made, self._asked = create("upscaler", name, **options), (name, dict(options))
        return self._made  # type: ignore[no-any-return]

    def record(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a recipe keeps of what an upscaler says of itself, such as the SHA-256 of its weights."""
        said = upscaler_settings(self(name, options))
        return {"upscaler_settings": said} if said else {}


class Sampler:
    """Makes recipes of jobs, and pictures of recipes.

    Args:
        backbone: loaded.
        loaded: what is known of the model.
        jobs: prompts or jobs.
        given: for the jobs that have none of their own.

    Attributes:
        jobs: each with a seed and a size.
    """

    def __init__(
        self, backbone: Backbone, loaded: LoadedModel, jobs: Sequence[str | Job], given: Mapping[str, Any]
    ) -> None:
        defaults = {name: given.get(name) for name in (*OF_JOBS, "width", "height")}
        filled = fill_jobs(jobs, negative_prompt=given.get("negative_prompt") or "", **defaults)
        self.backbone, self.loaded, self.sources = backbone, loaded, Sources(backbone.latent.granularity)
        self.upscalers = Upscalers()
        self._given = {name: value for name, value in given.items() if name not in OF_JOBS}
        self.jobs = [self.sources.sized(job, self._given.get("stages")) for job in filled]
        self._warn_of_cuts()
        # each size is settled and checked once, however many jobs there are
        self._settled = {key: self._settle(*key) for key in dict.fromkeys(map(self._key, self.jobs))}

    def _warn_of_cuts(self) -> None:
        """Name what is cut off, once for each shape."""
        begun = ((self.sources.size(job.image), job.width, job.height) for job in self.jobs if job.image)
        for own, width, height in dict.fromkeys(begun):
            if width and height:
                warn_of_cut(own, (width, height), self.sources.granularity)

    @property
    def staged(self) -> bool:
        """Whether any picture is sampled in more than one stage."""
        return any("earlier" in recipe for recipe in self._settled.values())

    def recipe(self, job: Job) -> dict[str, Any]:
        """All that makes a job's picture what it is."""
        own = {"prompt": job.prompt, "seed": job.seed, "negative_prompt": job.negative_prompt}
        return self._settled[self._key(job)] | own | self.sources.record(job)

    def plan(self, recipe: Mapping[str, Any]) -> list[Planned]:
        """The stages of a recipe."""
        settings = settings_from(recipe)
        counts = steps_of(self.backbone, settings, picture="image" in recipe)
        return [Planned(one.width, one.height, steps) for one, steps in zip(settings.stages, counts, strict=True)]

    def __call__(self, recipe: Mapping[str, Any], course: Course) -> Image.Image:
        """The picture of a recipe, from the last of its finished stages on."""
        settings = settings_from(recipe)
        records = [_stage_recipe(recipe, settings, place) for place in range(len(settings.earlier))]
        done, picture = course.stages.newest(records)
        first = settings.stages[0]
        begin = picture or fitted(recipe, (first.width, first.height))
        batch = Batch([recipe["prompt"]], [recipe["seed"]], None if begin is None else [to_tensor(begin)])
        rest = attrs.evolve(settings, earlier=settings.earlier[done:])
        upscaler = self.upscalers(settings.upscaler, settings.upscaler_options)
        told = _going_on(course, self.plan(recipe), done)
        for place, (pixels,) in enumerate(sample_stages(self.backbone, batch, rest, upscaler, on_step=told), done):
            picture = to_picture(pixels)
            if place < len(records):
                course.stages.save(picture, records[place])
        assert picture is not None
        return picture

    def _key(self, job: Job) -> tuple[Any, ...]:
        return job.width, job.height, self.sources.stages(job, self._given.get("stages")), job.image is not None

    def _settle(self, width: int | None, height: int | None, stages: Any, image: bool) -> dict[str, Any]:
        """A recipe but for prompt, seed and picture."""
        given = {**self._given, "width": width, "height": height, "stages": stages}
        settings = choose_settings(self.backbone, self.loaded.model, given, image=image)
        if not image and (words := suggested_stages(self.backbone, self.loaded.model, settings, stages)):
            warnings.warn(words, stacklevel=2)
        record = make_recipe(self.loaded, "", 0, settings)
        if image or settings.earlier:
            record |= self.upscalers.record(settings.upscaler, settings.upscaler_options)
        return record


@attrs.frozen
class Enlarger:
    """An upscaler that makes pictures of others alone.

    Args:
        upscaler: registered name.
        options: of the upscaler.
        device: that computes.
    """

    upscaler: str
    options: Mapping[str, Any]
    device: torch.device

    def __call__(self, made: Upscaler, picture: Image.Image, size: Size) -> Image.Image:
        """A picture, enlarged.

        Raises:
            ConfigError: the upscaler returns a picture of another size, or values that are no numbers.
        """
        pixels, (width, height) = to_float(to_tensor(picture))[None].to(self.device), size
        return to_picture(to_uint8(enlarge(made, self.upscaler, pixels, height, width)[0].cpu()))


def _stage_recipe(recipe: Mapping[str, Any], settings: SamplingSettings, place: int) -> dict[str, Any]:
    """The recipe of one of the earlier stages, by which it could be made alone."""
    stage = attrs.evolve(settings.stages[place], earlier=settings.earlier[:place])
    without = {field.name for field in attrs.fields(SamplingSettings)}
    if place == 0 and "image" not in recipe:  # nothing is enlarged yet
        without.add("upscaler_settings")
        stage = SamplingSettings(**attrs.asdict(settings.earlier[0]), negative_prompt=settings.negative_prompt)
    made = settings_record(stage)
    kept = {name: made.get(name, value) for name, value in recipe.items() if name in made or name not in without}
    return kept | made


def _going_on(course: Course, plan: Sequence[Planned], done: int) -> Callback:
    """The callback of the stages that remain, which counts those that are finished, too."""
    before, steps = sum(stage.steps for stage in plan[:done]), sum(stage.steps for stage in plan)

    def told(step: SamplingStep) -> None:
        now = attrs.evolve(step, step=before + step.step, steps=steps, stage=done + step.stage, stages=len(plan))
        course(now)

    return told
