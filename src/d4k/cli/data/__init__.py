"""`d4k data`: from a pile of pictures to a dataset."""

from __future__ import annotations

import click

from d4k.cli.data.build import build

__all__ = ["data"]


@click.group()
def data() -> None:
    """Make datasets from pictures.

    \b
    Example:
      d4k data build photos --output dataset
    """


for command in (build,):
    data.add_command(command)
