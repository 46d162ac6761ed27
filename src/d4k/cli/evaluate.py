"""`d4k evaluate`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve

from d4k.cli.prompts import prompts_option, read_prompts
from d4k.config import read_toml, with_settings
from d4k.errors import ConfigError, did_you_mean
from d4k.plugins import create

if TYPE_CHECKING:
    from d4k.evaluation import Evaluation
    from d4k.protocols import Metric

__all__ = ["evaluate", "make_metrics", "metric_options"]

DEFAULT = ("glcm", "compression-ratio")
ENDINGS = {"json": ".json", "markdown": ".md", "latex": ".tex"}
FAULTS = 20
"""Faults of files that are printed; `scores.json` has all."""


@click.command()
@click.argument("folders", metavar="FOLDER...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metric", "metrics", metavar="NAME", multiple=True, help="Repeat for several. [default: glcm, compression-ratio]"
)
@click.option(
    "--metric-option",
    "options",
    metavar="NAME.KEY=VALUE",
    multiple=True,
    help="Set an option of a metric, e.g. my-metric.levels=32. Repeat for several.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="A TOML file that names metrics with their options, a table [metrics.NAME] each.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for scores.json and the rows, which an interrupted or later measurement finds again.",
)
@click.option("--name", "names", multiple=True, help="Of each FOLDER, in their order. [default: the folder's name]")
@click.option(
    "--prompts",
    metavar="FILE",
    help="One an image: text, .jsonl (an index.jsonl, too), or a dataset by name. [default: the folder's index.jsonl]",
)
@prompts_option
@click.option("--reference", type=click.Path(path_type=Path), help="Folder with one reference picture an image.")
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    help="Folder with the set of reference pictures, for metrics such as fid. [default: that of --reference]",
)
@click.option("--device", help="cuda, mps or cpu; by default the first of these that there is.")
@click.option("--strict", is_flag=True, help="Stop where anything is wrong with a file, and say what.")
@click.option(
    "--resamples",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="How often the pictures are drawn anew for the 95 % intervals; 0 leaves them out.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of these draws.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads that decode pictures; by default one a core.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the scores to this .json file.")
@click.option(
    "--markdown", "markdown_file", type=click.Path(path_type=Path), help="Also write the table to this .md file."
)
@click.option(
    "--latex",
    "latex_file",
    type=click.Path(path_type=Path),
    help="Also write the table to this .tex file, for a paper (booktabs).",
)
def evaluate(folders: tuple[Path, ...], names: tuple[str, ...], **given: Any) -> None:
    """Measure the pictures in each FOLDER.

    Options of metrics are given as --metric-option NAME.KEY=VALUE, or in the tables of a TOML file that --config names:
    [metrics.my-metric] and below it levels = 32. Where both say something, the command line counts.

    With --output the rows of all pictures are kept: run it again, with more metrics or more pictures, and nothing is
    measured twice. Under accelerate launch every process measures its share.

    \b
    Example:
      d4k evaluate images --metric glcm --metric compression-ratio --output scores
      d4k evaluate images-before images-after --config metrics.toml --markdown table.md
    """
    from d4k.evaluation import score_table, write_scores

    chosen = make_metrics(given["metrics"], given["config"], given["options"])
    files = {given[f"{kind}_file"]: ending for kind, ending in ENDINGS.items() if given[f"{kind}_file"] is not None}
    for file, ending in files.items():
        if file.suffix != ending:
            raise ConfigError(f"cannot write scores to '{file.name}': the ending must be {ending}")
    measured = _measured(_named(folders, names), chosen, given)
    if not all(evaluation.scores for evaluation in measured):
        return  # the first process of the launch says it
    rows = {evaluation.name: evaluation.scores for evaluation in measured}
    click.echo(score_table(rows))
    for evaluation in measured:
        place = _place(given["output"], evaluation.name, len(measured))
        click.echo("".join(f"{line}\n" for line in _notes(evaluation, place)), nl=False)
    for evaluation in measured:
        count = len(evaluation.pictures)
        name = f"{evaluation.name}: " if len(measured) > 1 else ""
        click.echo(f"{name}{count} image{'s' if count != 1 else ''}")
    for file in files:
        write_scores(rows, file)


def _named(folders: Sequence[Path], names: Sequence[str]) -> dict[str, Path]:
    """The folders by their names in the table."""
    if names and len(names) != len(folders):
        raise ConfigError(f"{len(folders)} folders, but {len(names)} names: give one --name for each, or none")
    called = list(names) or [folder.absolute().name or str(folder) for folder in folders]
    for name in called:
        if called.count(name) > 1:
            raise ConfigError(f"two folders are called '{name}'; tell them apart with --name, once for each folder")
        if name in ("", ".", "..", "rows") or not name.isprintable() or any(letter in name for letter in "/\\"):
            raise ConfigError(f"'{name}' cannot name a folder of scores; give another with --name")
    return dict(zip(called, folders, strict=True))


def _measured(folders: Mapping[str, Path], metrics: Mapping[str, Metric], given: Mapping[str, Any]) -> list[Evaluation]:
    """Measure each folder; of several, each has a folder of scores below the output, and all share their rows."""
    from d4k.evaluation import Measuring, check_needs, find_subjects, measure, picture_files
    from d4k.evaluation.shares import this_process

    output, prompts, against = given["output"], given["prompts"], given["references"] or given["reference"]
    if output is None and this_process().count > 1:
        raise ConfigError("several processes share their rows in a folder: name one with --output")
    check_needs(metrics, prompts=True, reference=given["reference"] is not None, references=against is not None)
    texts = read_prompts(prompts, given["prompt_options"]) if prompts else None
    sets = {name: find_subjects(folder, texts, given["reference"]) for name, folder in folders.items()}
    for subjects in sets.values():
        told = any(subject.prompt is not None for subject in subjects)
        check_needs(metrics, prompts=told, reference=True, references=True)
    settings = Measuring(
        store=None if output is None else output / "rows",
        references=() if against is None else picture_files(against),
        **{key: given[key] for key in ("device", "strict", "resamples", "seed", "workers")},
    )
    return [
        measure(subjects, metrics, evolve(settings, name=name, output=_place(output, name, len(sets))))
        for name, subjects in sets.items()
    ]


def _place(output: Path | None, name: str, count: int) -> Path | None:
    """Where the scores of a folder are written."""
    return output if output is None or count == 1 else output / name


def _notes(evaluation: Evaluation, place: Path | None) -> list[str]:
    """What was wrong with files: a line each, with paths from where the command is given."""
    from d4k.evaluation.cells import one_line

    files = [fault.file if place is None else os.path.normpath(place / fault.file) for fault in evaluation.faults]
    faults = [
        one_line(f"{file}: {fault.kind}. {fault.reason}") for file, fault in zip(files, evaluation.faults, strict=True)
    ]
    more = [f"... and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
    return [*faults[:FAULTS], *more]


def make_metrics(names: Sequence[str], config: Path | None, options: Sequence[str]) -> dict[str, Metric]:
    """The metrics to measure, by name, made with their options.

    Args:
        names: registered metrics; empty takes those of the file, or else the two of Diffusion-4K.
        config: TOML with a table `[metrics.NAME]` for each metric, its options below it.
        options: `NAME.KEY=VALUE` each, which count more than the file.

    Raises:
        UnknownNameError: there is no such metric.
        ConfigError: the file has another key, an option is for a metric that is not measured, or it does not suit.
    """
    settings = metric_options(config, options)
    chosen = tuple(names) or tuple(metric_options(config, ())) or DEFAULT
    for name in settings:
        if name not in chosen:
            raise ConfigError(
                f"options were given for the metric '{name}', which is not measured{did_you_mean(name, chosen)} "
                f"Measured: {', '.join(chosen)}. Add --metric {name}, or leave its options out"
            )
    return {name: create("metric", name, **settings.get(name, {})) for name in chosen}


def metric_options(config: Path | None, options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of metrics by the metric's name.

    Args:
        config: TOML with a table `[metrics.NAME]` for each metric, its options below it.
        options: `NAME.KEY=VALUE` each, which count more than the file.

    Raises:
        ConfigError: the file has another key, or an option is not written so.
    """
    for option in options:
        if "." not in option.partition("=")[0]:
            raise ConfigError(f"cannot read --metric-option '{option}'; write NAME.KEY=VALUE, e.g. my-metric.levels=32")
    return with_settings(_tables(config), list(options))


def _tables(config: Path | None) -> Mapping[str, Mapping[str, Any]]:
    data = {} if config is None else read_toml(config)
    for key in data:
        if key != "metrics":
            raise ConfigError(f"unknown key '{key}' in {config}{did_you_mean(key, ['metrics'])} Known: metrics.NAME.")
    tables = data.get("metrics", {})
    if not isinstance(tables, Mapping) or not all(isinstance(table, Mapping) for table in tables.values()):
        raise ConfigError(
            f"{config} must hold a table for each metric, such as [metrics.glcm], with its options below it"
        )
    return tables
