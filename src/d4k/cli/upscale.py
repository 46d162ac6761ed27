"""`d4k upscale`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from d4k.cli.model import model_options, open_model, output_option, say_pictures
from d4k.cli.sampling import WithPresets, check_sampling, read_sampling, sampling_options
from d4k.errors import ConfigError, DataError
from d4k.values import UPSCALER

if TYPE_CHECKING:
    from d4k.sampling import Into, Job

__all__ = ["upscale"]

WITHOUT_MODEL = ("files", "size", "prompt", "no_refine", "upscaler", "upscaler_options", "output", "device", "seed")
"""Parameters that count without a model, too."""


@click.command(cls=WithPresets)
@click.argument("files", metavar="FILE...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--size", required=True, metavar="SIZE",
              help="Size of the results: the longer side in pixels, such as 4096, or a width and height, such as "
              "4096x3072, to which pictures of another shape are cut.")  # fmt: skip
@click.option("--prompt",
              help="Say what the pictures show. The default is the prompt of a picture that d4k generated, and nothing "
              "for another.")  # fmt: skip
@click.option("--no-refine", is_flag=True, help="Enlarge with the upscaler alone, and load no model.")
@sampling_options()
@output_option("upscaled")
@model_options
def upscale(files: tuple[Path, ...], size: str, prompt: str | None, output: Path, **settings: Any) -> None:
    """Enlarge each FILE, a picture or a folder of pictures, and let a model add the detail.

    A picture passes through stages of twice the size each, unless --stages names others: it is enlarged, made noisy up
    to --restart, and sampled from there. Run the command again to go on after an interruption.

    \b
    Example:
      d4k upscale photo.jpg --size 1024 --prompt "a tabby cat" --output large.png
      d4k upscale images --size 4096 --model stabilityai/stable-diffusion-3-medium-diffusers --output upscaled
      d4k upscale photo.jpg --size 1024 --no-refine --upscaler lanczos --output plain.png
    """
    from d4k.sampling import Into, check_output

    _refuse_own_folder(output, files)
    check_output(output)
    pictures = list(_pictures(files))
    jobs = _jobs(pictures, size, prompt)
    check_output(output, len(jobs))
    chosen = read_sampling(settings)
    check_sampling(chosen, pictures)
    if chosen.pop("no_refine"):
        _warn_of_ignored()
        say_pictures(lambda say: _enlarge(Into(output, on_picture=say), jobs, chosen))
        return
    pipe = open_model(chosen)
    jobs = _jobs(pictures, size, prompt, pipe.backbone.latent.granularity)
    chosen = {"stages": "auto", **chosen}
    say_pictures(lambda say: pipe.generate_to(output, jobs, on_picture=say, **chosen))


def _enlarge(into: Into, jobs: Sequence[Job], chosen: Mapping[str, Any]) -> list[Path]:
    """Enlarge without a model."""
    from d4k.machine import choose_device
    from d4k.sampling import Enlarger, enlarge_jobs, fill_jobs

    filled = fill_jobs(jobs, seed=chosen["seed"])
    enlarger = Enlarger(
        chosen.get("upscaler", UPSCALER), chosen.get("upscaler_options", {}), choose_device(chosen["device"])
    )
    return enlarge_jobs(into, filled, enlarger)


def _refuse_own_folder(output: Path, files: Sequence[Path]) -> None:
    """Refuse to write among the pictures that are enlarged, before anybody is told to empty that folder."""
    for file in files:
        folder = file if file.is_dir() else file.parent
        if output.is_dir() and output.samefile(folder):
            raise ConfigError(f"--output {output} is the folder of the pictures themselves; name another folder")


def _pictures(files: Sequence[Path]) -> Iterator[Path]:
    """The pictures of files and folders."""
    from d4k.images import list_pictures

    if not files:
        raise ConfigError("no picture was given; name files, or folders of pictures")
    for file in files:
        if file.is_dir():
            yield from list_pictures(file)
        else:
            yield file


def _jobs(pictures: Sequence[Path], size: str, prompt: str | None, granularity: int = 1) -> list[Job]:
    """One for each picture, with the size of its result.

    Args:
        pictures: files.
        size: as the user wrote it.
        prompt: of all; None is that of each picture's own recipe.
        granularity: pixels that a side which follows from the aspect is rounded to.

    Raises:
        ConfigError: the size cannot be read, or is smaller than a picture.
        DataError: a file is no picture.
    """
    from d4k.images import picture_size
    from d4k.sampling import Job, read_size

    jobs = []
    for file in pictures:
        own = picture_size(file, upright=True)
        width, height = read_size(size, own, granularity)
        whole = "x" in size.lower()
        if (width < own[0] or height < own[1]) if whole else max(width, height) < max(own):
            raise ConfigError(f"--size {size} is smaller than {file}, which has {own[0]}x{own[1]}; give a larger one")
        said = _recorded_prompt(file) if prompt is None else prompt
        jobs.append(Job(said, width=width, height=height, id=file.stem, image=file))
    return jobs


def _recorded_prompt(file: Path) -> str:
    """The prompt of a picture that d4k generated; empty for another."""
    from d4k.images import read_recipe

    try:
        said = read_recipe(file).get("prompt")
    except DataError:
        return ""
    return said if isinstance(said, str) else ""


def _warn_of_ignored() -> None:
    """Name the options that count for nothing where no model is loaded."""
    context = click.get_current_context()
    options = [option for option in context.command.params if option.name not in WITHOUT_MODEL]
    given = [
        option.opts[0]
        for option in options
        if option.name and context.get_parameter_source(option.name) is not ParameterSource.DEFAULT
    ]
    if given:
        warnings.warn(f"--no-refine loads no model, so that {', '.join(given)} count for nothing", stacklevel=2)
