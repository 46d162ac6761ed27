"""`d4k demo`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["demo"]


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Made anew.")
@click.option("--steps", type=click.IntRange(min=1), help="Fine-tuning steps, to make it shorter or longer.")
def demo(output: Path, steps: int | None) -> None:
    """Fine-tune a tiny model beyond its size, generate before and after, and score both. Offline, a few minutes.

    \b
    Example:
      d4k demo --output demo
    """
    from d4k.demo import run_demo

    run_demo(output, steps=steps, say=click.echo)
