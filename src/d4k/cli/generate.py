"""`d4k generate`."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from d4k.cli.adapter import read_scales
from d4k.cli.placement import load_model, placement_options
from d4k.cli.prompts import prompts_option, read_jobs
from d4k.config import with_settings
from d4k.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from d4k.pipeline import Pipeline
    from d4k.sampling import Job

__all__ = ["generate"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


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
        with formatter.section("Presets, where neither you nor the checkpoint says; the nearest size counts"):
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            for row in rows:
                cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                formatter.write(f"{'':{formatter.current_indent}}{cells.rstrip()}\n")


@click.command(cls=WithPresets)
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option("--prompts", "source", metavar="FILE", help="Text, one prompt a line; .jsonl; or a dataset by name.")
@prompts_option
@click.option("--recipe", type=click.Path(path_type=Path), metavar="IMAGE",
              help="Repeat a picture; what is given beside it wins.")  # fmt: skip
@click.option("--model", default="tiny-sd3", show_default=True, help="Registered checkpoint, folder or Hub id.")
@click.option(
    "--adapter", "adapters", metavar="PATH[:WEIGHT]", multiple=True, help="LoRA file or folder; may be repeated."
)
@click.option("--width", type=int, help="Pixels; the model's own size when left out.")
@click.option("--height", type=int, help="Pixels; the model's own size when left out.")
@click.option("--downscale", type=int, help="16: the F16 autoencoder of Diffusion-4K; the model's own when left out.")
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True,
              help="Any other option of the backbone, e.g. positions=interpolate.")  # fmt: skip
@click.option("--steps", type=int, help="Euler steps; see below when left out.")
@click.option("--guidance", type=float, help="Guidance scale; see below when left out.")
@click.option("--shift", type=float, help="Of the noise levels; see below when left out.")
@click.option("--negative-prompt", default="", help="What to steer away from.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every picture.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("images"), show_default=True,
              help="Folder for the pictures, new or to go on with, or one new .png, .jpg or .webp file.")  # fmt: skip
@placement_options()
def generate(
    prompts: tuple[str, ...],
    source: str | None,
    prompt_options: tuple[str, ...],
    recipe: Path | None,
    model: str,
    downscale: int | None,
    options: tuple[str, ...],
    output: Path,
    **settings: Any,
) -> None:
    """Draw one picture for each PROMPT, with the recipe stored inside.

    Run again into the same folder, it draws what is missing; under `accelerate launch -m` every process its share.

    \b
    Example:
      d4k generate "a tabby cat" "a rocket lifting off at night" --model tiny-sd3 --seed 1 --output cats
    """
    recorded: list[dict[str, Any]] = []
    backbone = with_settings({}, list(options)) | ({} if downscale is None else {"downscale": downscale})
    jobs, adapters = _jobs(prompts, source, prompt_options), read_scales(settings.pop("adapters"))
    if recipe is not None:
        known = _read_recipe(recipe)
        model, backbone = _unless_given(known, model=model)["model"], {**known.get("options", {}), **backbone}
        settings = _unless_given(known, **settings)
        recorded = [] if adapters else known.get("adapters", [])
        adapters = adapters or _weights(recorded)
        jobs = jobs or _jobs((known["prompt"],), None, ())
    if not jobs:
        raise ConfigError("no prompt was given; write one in quotes, or pass --prompts FILE")
    _check_output(output, len(jobs))
    from d4k.adapters import as_scales
    from d4k.models import ModelRef

    pipe = load_model(ModelRef(model, adapters=as_scales(adapters), options=backbone), settings)
    _warn_of_changes(pipe, recorded)
    if output.suffix:
        _generate_one(pipe, jobs[0], output, settings)
        return
    drawn: list[Path] = []
    files = pipe.generate_to(output, jobs, on_picture=lambda file: _say(file, drawn), **settings)
    if len(drawn) < len(files):
        click.echo(f"{len(files) - len(drawn)} of {len(files)} pictures were there already", err=True)


def _jobs(prompts: tuple[str, ...], source: str | None, options: tuple[str, ...]) -> list[Job]:
    from d4k.sampling import Job

    return [*map(Job, prompts), *(read_jobs(source, options) if source else [])]


def _read_recipe(path: Path) -> dict[str, Any]:
    from d4k.images import read_recipe
    from d4k.sampling import check_recipe

    return check_recipe(read_recipe(path), path)


def _weights(recorded: list[dict[str, Any]]) -> dict[str | Path, float]:
    """The adapters of a recipe; one that was on several times counts the sum."""
    sources = {used["sha256"]: used["source"] for used in recorded}
    weights: dict[str | Path, float] = dict.fromkeys(sources.values(), 0.0)
    for used in recorded:
        weights[sources[used["sha256"]]] += used["scale"]
    return weights


def _warn_of_changes(pipe: Pipeline, recorded: list[dict[str, Any]]) -> None:
    """Say which adapters of a recipe are not what they were."""
    known = {used["sha256"] for used in recorded}
    changed = [used.source for used in pipe.adapters.values() if recorded and used.sha256 not in known]
    if changed:
        warnings.warn(
            f"the recipe was made with another version of {', '.join(changed)}: the picture will differ", stacklevel=2
        )


def _unless_given(recipe: dict[str, Any], **values: Any) -> dict[str, Any]:
    """What the recipe says, except where the command line says otherwise."""
    given = click.get_current_context().get_parameter_source
    return {
        name: recipe[name] if name in recipe and given(name) is ParameterSource.DEFAULT else value
        for name, value in values.items()
    }


def _check_output(output: Path, count: int) -> None:
    """A folder that is new or to go on with, or one new file for a single prompt."""
    from d4k.sampling import refuse_foreign

    if not output.suffix:
        refuse_foreign(output)
    elif output.suffix.lower() not in PICTURES:
        raise ConfigError(f"cannot write {output}: unknown ending '{output.suffix}'; allowed: {', '.join(PICTURES)}")
    elif count > 1:
        raise ConfigError(f"{count} prompts do not fit into one file, {output}; name a folder")
    elif output.exists():
        raise OutputError(f"{output} exists already; name another file")


def _generate_one(pipe: Pipeline, job: Job, output: Path, settings: dict[str, Any]) -> None:
    from d4k.images import save_picture
    from d4k.sampling import Progress

    own = {name: getattr(job, name) for name in ("seed", "width", "height", "negative_prompt")}
    settings |= {name: value for name, value in own.items() if value is not None}
    with Progress(1) as progress:
        picture = pipe.generate(job.prompt, on_step=progress, **settings)[0]
    save_picture(picture, output, recipe=picture.info["d4k"])
    _say(output, [])


def _say(file: Path, drawn: list[Path]) -> None:
    """Name a picture on the standard output, above the progress bar."""
    from tqdm import tqdm

    tqdm.write(str(file), file=sys.stdout)
    drawn.append(file)
