"""`d4k evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from d4k.cli.prompts import prompts_option, read_prompts
from d4k.errors import ConfigError

__all__ = ["evaluate"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--metric", "metrics", metavar="NAME", multiple=True, help="Repeat for several. [default: glcm, compression-ratio]"
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
    prompts: str | None,
    prompt_options: tuple[str, ...],
    reference: Path | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure the pictures in FOLDER.

    \b
    Example:
      d4k evaluate images --metric glcm --metric compression-ratio --json scores.json
    """
    from d4k.evaluation import evaluate as measure
    from d4k.evaluation import metrics_by_name, score_table, write_scores

    chosen = metrics_by_name(metrics or ("glcm", "compression-ratio"))
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
