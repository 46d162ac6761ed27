"""`d4k data build`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.datasets.build import BuildSettings, Built, Counts

__all__ = ["build"]

NAMED = 20
"""Broken pictures that are named on the screen; all are in the decisions."""


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Write the dataset into this folder, which is new, or is that of an earlier build.",
)
@click.option(
    "--settings",
    "file",
    metavar="FILE.toml",
    type=click.Path(path_type=Path),
    help="Read settings from a TOML file; options of the command count more.",
)
@click.option(
    "--filter",
    "filters",
    metavar="NAME",
    multiple=True,
    help="Use this filter beside the default ones; d4k plugins lists them. May be repeated.",
)
@click.option(
    "--no-filter",
    "without",
    metavar="NAME",
    multiple=True,
    help="Do not use this filter, or with `all` none of the default ones. May be repeated.",
)
@click.option(
    "--set",
    "changes",
    metavar="FILTER.OPTION=VALUE",
    multiple=True,
    help="Set an option of a filter, e.g. size.min_side=1024, or another setting. May be repeated.",
)
@click.option(
    "--link/--copy",
    "link",
    default=None,
    help="Hard-link pictures into the dataset where the file system can (the default), or copy them.",
)
@click.option(
    "--eval",
    "held_out",
    metavar="N",
    help="Pictures of the split `eval`: a count, or a share such as 0.02. The default is none.",
)
@click.option("--seed", type=int, help="Seed of the choice of these; the default is 0.")
@click.option("--licence", help="Licence of the pictures whose source names none.")
@click.option(
    "--no-licence",
    type=click.Choice(["apart", "keep"]),
    help="Where pictures without a licence go: apart, into kept-apart (the default), or into the dataset.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes that look at pictures; one a processor is the default."
)
@click.option("--engine", type=click.Choice(["process", "ray"]), default="process", show_default=True,
              help="Look at pictures on this machine, or on the Ray cluster that it belongs to.")  # fmt: skip
def build(sources: tuple[str, ...], output: Path, workers: int | None, engine: Any, **options: Any) -> None:
    """Make a dataset of the pictures of each SOURCE, with a reason for each picture that is left out.

    A SOURCE is a folder, a Parquet or CSV file with a column of paths or URLs, or the id of a dataset on the Hub. Run
    the command again to go on after an interruption, or to decide anew with other settings: what was looked at once is
    not decoded again.

    \b
    Example:
      d4k data build photos --output dataset --licence CC-BY-4.0 --eval 0.02
      d4k data build list.parquet --output dataset --set size.min_side=1024 --no-filter blur
    """
    from d4k.datasets import build as building

    settings = _settings(options)
    built = building.build(sources, output, settings, engine=engine, workers=workers)
    _say_broken(built)
    for name, words in _rows(built.counts):
        click.echo(f"{name:24}{words}".rstrip())
    click.echo(
        f"{built.read} files were read and {built.decoded} decoded; the reasons are in {output}/decisions.parquet"
    )


def _settings(options: Mapping[str, Any]) -> BuildSettings:
    from d4k.config import read_toml, with_settings
    from d4k.datasets.build import read_settings

    data = dict(read_toml(options["file"])) if options["file"] else {}
    chosen = dict(data.get("filters", {})) if isinstance(data.get("filters", {}), Mapping) else data["filters"]
    if "all" in options["without"]:
        data["default_filters"] = False
    for name in options["without"]:
        if name != "all":
            chosen[name] = False
    for name in options["filters"]:
        chosen[name] = chosen.get(name) or {}
    if chosen:
        data["filters"] = chosen
    given = {
        "place": {True: "link", False: "copy", None: None}[options["link"]],
        "eval": _number(options["held_out"]),
        "seed": options["seed"],
        "licence": options["licence"],
        "no_licence": options["no_licence"],
    }
    named = {key: value for key, value in given.items() if value is not None}
    return read_settings(data, {**with_settings({}, list(options["changes"])), **named})


def _number(words: str | None) -> int | float | None:
    if words is None:
        return None
    try:
        return int(words) if words.strip().isdigit() else float(words)
    except ValueError as error:
        raise ConfigError(f"--eval is {words!r}; it must be a count of pictures, or a share such as 0.02") from error


def _say_broken(built: Built) -> None:
    broken = [decision for decision in built.decisions if decision.outcome == "broken"]
    for decision in broken[:NAMED]:
        click.echo(f"broken: {decision.listed.id}: {decision.reason}", err=True)
    if len(broken) > NAMED:
        click.echo(f"broken: {len(broken) - NAMED} more, see decision = 'broken' in the decisions", err=True)


def _rows(counts: Counts) -> Iterator[tuple[str, str]]:
    yield "pictures", f"{sum(counts.outcomes.values())}"
    splits: Sequence[str] = [f"{name} {count}" for name, count in counts.splits.items()]
    yield "kept", f"{counts.outcomes['kept']} ({', '.join(splits)})"
    yield "kept apart, no licence", f"{counts.outcomes['apart']}"
    yield "broken", f"{counts.outcomes['broken']}"
    yield "rejected", f"{counts.outcomes['rejected']}"
    yield from ((f"  by {name}", f"{count}") for name, count in counts.reasons.items())
    if counts.others:
        named = ", ".join(f"{count} {ending}" for ending, count in counts.others.items())
        yield "other files left alone", f"{sum(counts.others.values())} ({named})"
