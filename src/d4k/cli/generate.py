"""`d4k generate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.cli import recipe as recipes
from d4k.cli.adapter import read_scales
from d4k.cli.placement import load_model, placement_options
from d4k.cli.prompts import prompts_option, read_jobs
from d4k.config import with_settings
from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.sampling import Job

__all__ = ["generate"]


class WithPresets(click.Command):
    """Shows the presets of the installed backbones below its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table, and what wins over it."""
        from d4k.plugins import registry

        rows = [("backbone", "size", "steps", "guidance", "shift")]
        for name in registry().names("backbone"):
            for preset in registry().entries["backbone", name][0].presets:
                stride = "" if preset.downscale is None else f" (F{preset.downscale})"
                shift = "scheduler's" if preset.shift is None else f"{preset.shift:g}"
                rows.append((name, f"{preset.size}{stride}", str(preset.steps), f"{preset.guidance:g}", shift))
        with formatter.section("Presets, used where neither you nor the model says; the nearest size counts"):
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            for row in rows:
                cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                formatter.write(f"{'':{formatter.current_indent}}{cells.rstrip()}\n")


class Shift(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A number, or the word `scheduler`."""

    name = "number|scheduler"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Read it."""
        try:
            return value if value == "scheduler" else float(value)
        except ValueError:
            self.fail(f"'{value}' is neither a number nor the word scheduler", param, ctx)


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
@click.option("--model", default="tiny-sd3", show_default=True,
              help="Use this model: a name that d4k plugins lists, a folder, or a Hub id.")  # fmt: skip
@click.option("--adapter", "adapters", metavar="PATH[:SCALE]", multiple=True,
              help="Switch on an adapter (LoRA): a file, a folder or a Hub id. May be repeated.")  # fmt: skip
@click.option("--width", type=int, help="Width of the pictures in pixels. The model's own size is the default.")
@click.option("--height", type=int, help="Height of the pictures in pixels. The model's own size is the default.")
@click.option("--downscale", type=int,
              help="Pixels that one latent pixel stands for; 16 selects the F16 autoencoder of Diffusion-4K. "
              "The model's own is the default.")  # fmt: skip
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True,
              help="Set any other option of the backbone, such as positions=interpolate. May be repeated.")  # fmt: skip
@click.option("--steps", type=int, help="Number of sampling steps. The presets below are the default.")
@click.option("--guidance", type=float,
              help="Guidance scale: how closely a picture follows its prompt. The presets below are the "
              "default.")  # fmt: skip
@click.option("--shift", type=Shift(),
              help="Shift of the noise levels; 'scheduler' is the one of the model's own scheduler. The presets "
              "below are the default.")  # fmt: skip
@click.option("--negative-prompt", default="", help="Steer away from what this describes.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
              help="Seed of the starting noise of every picture.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=Path("images"), show_default=True,
              help="Write into this folder, which is new or is gone on with, or to one new .png, .jpg or .webp "
              "file.")  # fmt: skip
@placement_options()
def generate(
    prompts: tuple[str, ...],
    source: str | None,
    prompt_options: tuple[str, ...],
    recipe: Path | None,
    allow_download: bool,
    adapters: tuple[str, ...],
    downscale: int | None,
    options: tuple[str, ...],
    output: Path,
    **settings: Any,
) -> None:
    """Generate one picture for each PROMPT and store its recipe inside.

    Run the command again to go on after an interruption: only what is missing is generated. Under
    `accelerate launch -m` every process generates its share.

    \b
    Example:
      d4k generate "a tabby cat" "a rocket lifting off at night" --model tiny-sd3 --seed 1 --output cats
      d4k generate --prompts prompts.jsonl --output images
      d4k generate --recipe cats/0000-a-tabby-cat-seed1.png --seed 2 --output other.png
    """
    from d4k.sampling import check_output

    check_output(output)
    backbone = with_settings({}, list(options)) | ({} if downscale is None else {"downscale": downscale})
    jobs, scales = _jobs(prompts, source, prompt_options), read_scales(adapters)
    recorded: list[dict[str, Any]] = []
    if recipe is not None:
        known = recipes.read(recipe)
        backbone, settings = {**known.get("options", {}), **backbone}, recipes.unless_given(known, settings)
        recorded = [] if scales else known.get("adapters", [])
        scales = scales or recipes.recorded_adapters(recorded)
        recipes.allow_downloads(recipe, known, allowed=allow_download)
        jobs = jobs or _jobs((known["prompt"],), None, ())
    if not jobs:
        raise ConfigError("no prompt was given; write one in quotes, or pass --prompts FILE")
    check_output(output, len(jobs))
    from d4k.adapters import as_scales
    from d4k.models import ModelRef

    pipe = load_model(ModelRef(settings.pop("model"), adapters=as_scales(scales), options=backbone), settings)
    recipes.warn_of_changes(pipe, recorded)
    generated: list[Path] = []
    files = pipe.generate_to(output, jobs, on_picture=lambda file: _say(file, generated), **settings)
    if len(generated) < len(files):
        click.echo(f"{len(files) - len(generated)} of {len(files)} pictures were there already", err=True)


def _jobs(prompts: tuple[str, ...], source: str | None, options: tuple[str, ...]) -> list[Job]:
    from d4k.sampling import Job

    return [*map(Job, prompts), *(read_jobs(source, options) if source else [])]


def _say(file: Path, generated: list[Path]) -> None:
    """Name a picture on the standard output, above the progress bar."""
    from tqdm import tqdm

    tqdm.write(str(file), file=sys.stdout)
    generated.append(file)
