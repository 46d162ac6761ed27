"""The command line: parse, call the facade, print. A file a command; heavy imports happen inside the commands."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import click

from d4k import __version__
from d4k.cli.adapter import adapter
from d4k.cli.benchmark import benchmark
from d4k.cli.cache import cache
from d4k.cli.check import check
from d4k.cli.compare import compare
from d4k.cli.data import data
from d4k.cli.demo import demo
from d4k.cli.evaluate import evaluate
from d4k.cli.generate import generate
from d4k.cli.new import new
from d4k.cli.plan import plan
from d4k.cli.plugins import plugins
from d4k.cli.report import report
from d4k.cli.train import train
from d4k.cli.upscale import upscale
from d4k.errors import D4KError

__all__ = ["main"]

NOISY = ("torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer")
"""Loggers that warn whenever diffusers is imported beside a torchao of another age, whether it is used or not."""

COMMANDS = (
    demo,
    plan,
    cache,
    train,
    generate,
    upscale,
    data,
    evaluate,
    compare,
    benchmark,
    report,
    adapter,
    plugins,
    new,
    check,
)  # in the order of use


class Commands(click.Group):
    """Prints a `D4KError` as one line and exits with code 2; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        formatted = warnings.formatwarning
        # a warning is a line as an error is one: the place in the code that Python adds reads as a crash
        warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
        try:
            return super().invoke(ctx)
        except D4KError as error:
            if not getattr(error, "elsewhere", False):  # another process of the launch says it
                click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)
        finally:
            warnings.formatwarning = formatted

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order of use."""
        return [str(command.name) for command in COMMANDS]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="d4k")
def main() -> None:
    """Fine-tune latent diffusion models at 4K, generate images with them, and measure honestly."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


for command in COMMANDS:
    main.add_command(command)
