"""Which model: the options that `generate` and `upscale` share, and how one is loaded from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from d4k.cli import recipe as recipes
from d4k.cli.adapter import read_scales
from d4k.cli.placement import load_model, placement_options
from d4k.config import with_settings

if TYPE_CHECKING:
    from d4k.pipeline import Pipeline

__all__ = ["model_options", "open_model", "output_option", "say_pictures"]

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = (
    click.option("--model", default="tiny-sd3", show_default=True,
                 help="Use this model: a name that d4k plugins lists, a folder, or a Hub id."),
    click.option("--adapter", "adapters", metavar="PATH[:SCALE]", multiple=True,
                 help="Switch on an adapter (LoRA): a file, a folder or a Hub id. May be repeated."),
    click.option("--downscale", type=int,
                 help="Pixels that one latent pixel stands for; 16 selects the F16 autoencoder of Diffusion-4K. "
                 "The model's own is the default."),
    click.option("--option", "options", metavar="KEY=VALUE", multiple=True,
                 help="Set any other option of the backbone, such as positions=interpolate. May be repeated."),
    click.option("--negative-prompt", default="", help="Steer away from what this describes."),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
                 help="Seed of the starting noise of every picture."),
)  # fmt: skip


def model_options(command: Command) -> Command:
    """Add the options that name a model, and those of `placement_options`, to a command."""
    command = placement_options()(command)
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def output_option(default: str) -> Callable[[Command], Command]:
    """Where pictures go."""
    return click.option(
        "--output", type=click.Path(path_type=Path), default=Path(default), show_default=True,
        help="Write into this folder, which is new or is gone on with, or to one new .png, .jpg or .webp file.",
    )  # fmt: skip


def open_model(settings: dict[str, Any], recipe: Mapping[str, Any] | None = None) -> Pipeline:
    """Load the model that a command names. What names it is taken out of `settings`.

    Args:
        settings: of the command.
        recipe: of a picture that is repeated; what the command line says goes over it.
    """
    from d4k.adapters import as_scales
    from d4k.models import ModelRef

    known = recipe or {}
    downscale, options = settings.pop("downscale"), with_settings({}, list(settings.pop("options")))
    backbone = {**known.get("options", {}), **options, **({} if downscale is None else {"downscale": downscale})}
    scales = read_scales(settings.pop("adapters"))
    recorded: Iterable[Mapping[str, Any]] = [] if scales else known.get("adapters", [])
    ref = ModelRef(
        settings.pop("model"), adapters=as_scales(scales or recipes.recorded_adapters(recorded)), options=backbone
    )
    pipe = load_model(ref, settings)
    recipes.warn_of_changes(pipe, recorded)
    return pipe


def say_pictures(write: Callable[[Callable[[Path], None]], list[Path]]) -> None:
    """Name each picture on the standard output, above the progress bar, and say how many were there already.

    Args:
        write: writes the pictures; calls what it is given with each, and returns all, also those that were there.
    """
    import sys

    from tqdm import tqdm

    generated: list[Path] = []

    def say(file: Path) -> None:
        tqdm.write(str(file), file=sys.stdout)
        generated.append(file)

    files = write(say)
    if len(generated) < len(files):
        click.echo(f"{len(files) - len(generated)} of {len(files)} pictures were there already", err=True)
