"""`d4k generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.cli import recipe as recipes
from d4k.cli.model import model_options, open_model, output_option, say_pictures
from d4k.cli.prompts import prompts_option, read_jobs
from d4k.cli.sampling import WithPresets, check_sampling, read_sampling, sampling_options
from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.sampling import Job

__all__ = ["generate"]


@click.command(cls=WithPresets)
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option("--prompts", "source", metavar="FILE",
              help="Read prompts from a text file with one prompt a line, from a .jsonl or .json file, or from a "
              "dataset that is given by its name.")  # fmt: skip
@prompts_option
@click.option("--recipe", type=click.Path(path_type=Path), metavar="IMAGE",
              help="Repeat a picture that d4k generated. What you give beside it wins.")  # fmt: skip
@click.option("--allow-download", is_flag=True,
              help="Let --recipe download from the Hub what it names and this machine does not have.")  # fmt: skip
@click.option("--width", type=int,
              help="Width of the pictures in pixels. The model's own size, or that of --image, is the "
              "default.")  # fmt: skip
@click.option("--height", type=int,
              help="Height of the pictures in pixels. The model's own size, or that of --image, is the "
              "default.")  # fmt: skip
@click.option("--image", type=click.Path(path_type=Path), metavar="FILE",
              help="Begin with this picture in place of noise.")  # fmt: skip
@sampling_options()
@output_option("images")
@model_options
def generate(prompts: tuple[str, ...], recipe: Path | None, output: Path, **settings: Any) -> None:
    """Generate one picture for each PROMPT and store its recipe inside.

    Run the command again to go on after an interruption: only what is missing is generated, from the last finished
    stage on. Under `accelerate launch -m` every process generates its share.

    \b
    Example:
      d4k generate "a tabby cat" "a rocket lifting off at night" --model tiny-sd3 --seed 1 --output cats
      d4k generate --prompts prompts.jsonl --output images
      d4k generate --recipe cats/0000-a-tabby-cat-seed1.png --seed 2 --output other.png
      d4k generate "a tabby cat" --stages 256,512,1024 --output large.png
      d4k generate "an oil painting of a cat" --image cat.png --strength 0.5 --output painting.png
    """
    from d4k.sampling import check_output

    check_output(output)
    jobs = _jobs(prompts, settings.pop("source"), settings.pop("prompt_options"))
    known, allowed = {}, settings.pop("allow_download")
    if recipe is not None:
        known = recipes.read(recipe)
        settings = recipes.unless_given(recipes.as_options(known, recipe), settings)
        recipes.allow_downloads(recipe, known, allowed=allowed)
        jobs = jobs or _jobs((known["prompt"],), None, ())
    if not jobs:
        raise ConfigError("no prompt was given; write one in quotes, or pass --prompts FILE")
    check_output(output, len(jobs))
    chosen = read_sampling(settings, recipes.recorded_options(known, settings["upscaler"]))
    check_sampling(chosen, [job.image or settings["image"] for job in jobs])
    recipes.warn_of_upscaler(known, chosen)
    pipe = open_model(chosen, known)
    say_pictures(lambda say: pipe.generate_to(output, jobs, on_picture=say, **chosen))


def _jobs(prompts: Sequence[str], source: str | None, options: Sequence[str]) -> list[Job]:
    from d4k.sampling import Job

    return [*map(Job, prompts), *(read_jobs(source, options) if source else [])]
