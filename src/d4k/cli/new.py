"""`d4k new`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["new"]


@click.command()
@click.argument("kind", type=click.Choice(["backbone", "loss", "metric", "dataset"]))
@click.argument("name")
@click.option("--pipeline", metavar="CLASS", help="Of a backbone: the diffusers pipeline. [default: Lumina2Pipeline]")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path(), help="Make the folder d4k-NAME in here. [default: .]"
)
def new(kind: Any, name: str, pipeline: str | None, output: Path) -> None:
    """Write a plugin to begin with: it is complete, and passes its own tests.

    \b
    Example:
      d4k new loss my-l1
      pip install -e ./d4k-my-l1
      d4k plugins
    """
    from d4k.scaffold import write_plugin

    folder = write_plugin(kind, name, output, pipeline)
    click.echo(f"{folder}\n\nInstall it, then look for it and run its contract:")
    path = folder if folder.is_absolute() else f"./{folder}"
    click.echo(f"  pip install -e {path}\n  d4k plugins\n  d4k check d4k-{name}")
