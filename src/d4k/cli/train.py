"""`d4k train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from d4k.cli.placement import placement_options
from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.config import RunConfig

__all__ = ["train"]


@click.command()
@click.argument("recipe", metavar="[RUN.toml]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting of RUN.toml, e.g. training.steps=100. May be repeated.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in output_dir, from its newest checkpoint, or from its beginning where it has none.",
)
@placement_options("device", "memory_gb")
def train(
    recipe: Path | None, settings: tuple[str, ...], resume: bool, device: str | None, memory_gb: float | None
) -> None:
    """Fine-tune a model as RUN.toml says.

    \b
    Example:
      d4k train examples/train_tiny.toml --set training.steps=20 --set output_dir=runs/first
    """
    from d4k.models import RunFolder
    from d4k.training import check_launch, first_process, speaking_once, train_from_config

    with speaking_once():
        config = _settings(recipe, settings)
        check_launch(config)
    run = train_from_config(config, device=device, memory_gb=memory_gb, resume=resume)
    if first_process():
        last = f"; last loss {run.losses[-1]:.4f}" if run.losses else ""
        click.echo(f"{run.steps} steps done{last}\nmodel: {run.model}\nlosses: {RunFolder(run.output_dir).losses}")


def _settings(recipe: Path | None, settings: tuple[str, ...]) -> RunConfig:
    """The settings of a run, of a file and of the command line."""
    from d4k.config import RunConfig, from_mapping, read_toml, with_settings

    given = with_settings({} if recipe is None else read_toml(recipe), list(settings))
    try:
        return from_mapping(RunConfig, given)
    except ConfigError as error:
        if recipe is None:
            raise
        raise ConfigError(f"{recipe}{' and --set' if settings else ''}: {error}") from error
