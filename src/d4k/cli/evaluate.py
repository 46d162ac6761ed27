"""`d4k evaluate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.cli.prompts import prompts_option, read_prompts
from d4k.config import read_toml, with_settings
from d4k.errors import ConfigError, did_you_mean
from d4k.plugins import create

if TYPE_CHECKING:
    from d4k.protocols import Metric

__all__ = ["evaluate", "make_metrics", "metric_options"]

DEFAULT = ("glcm", "compression-ratio")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
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
    "--prompts", metavar="FILE", help="One an image: text, .jsonl (an index.jsonl, too), or a dataset by name."
)
@prompts_option
@click.option("--reference", type=click.Path(path_type=Path), help="Folder with one reference picture an image.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the scores to this .json file.")
@click.option(
    "--markdown", "markdown_file", type=click.Path(path_type=Path), help="Also write the table to this .md file."
)
def evaluate(
    folder: Path,
    metrics: tuple[str, ...],
    options: tuple[str, ...],
    config: Path | None,
    prompts: str | None,
    prompt_options: tuple[str, ...],
    reference: Path | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure the pictures in FOLDER.

    Options of metrics are given as --metric-option NAME.KEY=VALUE, or in the tables of a TOML file that --config names:
    [metrics.my-metric] and below it levels = 32. Where both say something, the command line counts.

    \b
    Example:
      d4k evaluate images --metric glcm --metric compression-ratio --json scores.json
      d4k evaluate images --config metrics.toml
    """
    from d4k.evaluation import evaluate as measure
    from d4k.evaluation import score_table, write_scores

    chosen = make_metrics(metrics, config, options)
    texts = read_prompts(prompts, prompt_options) if prompts else None
    for file, ending in ((json_file, ".json"), (markdown_file, ".md")):
        if file is not None and file.suffix != ending:
            raise ConfigError(f"cannot write scores to '{file.name}': the ending must be {ending}")
    rows = {folder.name or str(folder): measure(folder, chosen, prompts=texts, reference=reference)}
    click.echo(score_table(rows))
    count = next(iter(rows.values()))[0].count
    click.echo(f"{count} image{'s' if count != 1 else ''}")
    for file in (json_file, markdown_file):
        if file is not None:
            write_scores(rows, file)


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
