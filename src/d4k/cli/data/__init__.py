"""`d4k data`: from a pile of pictures to a dataset."""

from __future__ import annotations

import click

from d4k.cli.data.caption import caption

__all__ = ["data"]


@click.group()
def data() -> None:
    """Make datasets from pictures.

    \b
    Example:
      d4k data caption photos --captioner openai --set model=gpt-4o
    """


for command in (caption,):
    data.add_command(command)
