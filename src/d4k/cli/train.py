"""`d4k train`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import frozen

from d4k.cli.placement import placement_options
from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.config import RunConfig
    from d4k.models import RunFolder

__all__ = ["read_settings", "train"]


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
@click.option(
    "--dry-run",
    "dry",
    is_flag=True,
    help="Do all but train, and print the plan: pictures, steps, memory, disk and time. Only the cache is written.",
)
@placement_options("device", "memory_gb")
def train(
    recipe: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    dry: bool,
    device: str | None,
    memory_gb: float | None,
) -> None:
    """Fine-tune a model as RUN.toml says.

    \b
    Example:
      d4k train examples/train_tiny.toml --set training.steps=20 --set output_dir=runs/first
      d4k train examples/train_tiny.toml --dry-run
    """
    with _leaving_on_signals(Command(recipe, settings, device, memory_gb), resume) as begun:
        from d4k.models import RunFolder
        from d4k.training import check_launch, first_process, speaking_once, train_from_config

        with speaking_once():
            config = read_settings(recipe, settings)
            check_launch(config)
        if dry:
            _print_plan(config, device, memory_gb, resume)
            return
        begun.append(RunFolder(Path(config.output_dir)))
        run = train_from_config(config, device=device, memory_gb=memory_gb, resume=resume)
        if first_process():
            last = f"; last loss {run.losses[-1]:.4f}" if run.losses else ""
            done = f"{run.steps} step{'' if run.steps == 1 else 's'} done{last}"
            click.echo(f"{done}\nmodel: {run.model}\nlosses: {RunFolder(run.output_dir).losses}")


def _print_plan(config: RunConfig, device: str | None, memory_gb: float | None, resume: bool) -> None:
    """Go through the run dry, in every process, and say in one what came out."""
    from d4k.cli.dry_run import lines
    from d4k.training import dry_run_from_config, first_process

    found = dry_run_from_config(config, device=device, memory_gb=memory_gb, resume=resume)
    if first_process():
        for line in lines(found):
            click.echo(line)


def read_settings(recipe: Path | None, settings: tuple[str, ...]) -> RunConfig:
    """The settings of a run, of a file and of the command line."""
    from d4k.config import RunConfig, from_mapping, read_toml, with_settings

    given = with_settings({} if recipe is None else read_toml(recipe), list(settings))
    try:
        return from_mapping(RunConfig, given)
    except ConfigError as error:
        if recipe is None:
            raise
        raise ConfigError(f"{recipe}{' and --set' if settings else ''}: {error}") from error


@frozen
class Command:
    """What `d4k train` was given, but for `--resume`."""

    recipe: Path | None
    settings: tuple[str, ...]
    device: str | None
    memory_gb: float | None

    def line(self, *, resume: bool) -> str:
        """What a shell is given to run it again."""
        words = ["d4k", "train", *([] if self.recipe is None else [str(self.recipe)])]
        words += [word for setting in self.settings for word in ("--set", setting)]
        words += [] if self.device is None else ["--device", self.device]
        words += [] if self.memory_gb is None else ["--memory-gb", f"{self.memory_gb:g}"]
        return shlex.join([*words, *(["--resume"] if resume else [])])


@contextmanager
def _leaving_on_signals(command: Command, resume: bool) -> Iterator[list[RunFolder]]:
    """Leave with the exit code of the signal that ended the block, and one line that says how to go on.

    Yields a list for the folder of the run, once it is known.
    """
    begun: list[RunFolder] = []
    try:
        yield begun
    except (KeyboardInterrupt, SystemExit) as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else error.code
        if code not in (130, 143):
            raise
        step = getattr(error, "step", None)
        after = "" if step is None else f" after step {step}, which is saved"
        line = command.line(resume=resume or any(run.states() for run in begun))
        if os.environ.get("RANK", "0") == "0":
            name = "SIGINT" if code == 130 else "SIGTERM"
            click.echo(f"stopped by {name}{after}; go on with: {line}", err=True)
        click.get_current_context().exit(code)
