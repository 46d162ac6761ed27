"""`d4k data`: from a pile of pictures to a dataset."""

from __future__ import annotations

import click

from d4k.cli.data.build import build
from d4k.cli.data.caption import caption

__all__ = ["data"]


@click.group()
def data() -> None:
    """Make datasets from pictures: which belong in, and what they show.

    \b
    Example:
      d4k data build photos --output dataset --licence CC-BY-4.0
      d4k data caption dataset/train --captioner openai --set model=gpt-4o
    """


for command in (build, caption):
    data.add_command(command)
