"""`d4k compare`."""

from __future__ import annotations

from pathlib import Path

import click
from attrs import evolve

from d4k.errors import ConfigError

__all__ = ["compare"]

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("folders", nargs=-1, required=True, type=FILE)
@click.option("--votes", multiple=True, type=FILE, help="Votes that a report exported; repeat for those of others.")
@click.option("--all-pairs", is_flag=True, help="Compare each with each, not only the first with every other.")
@click.option("--resamples", type=click.IntRange(40), default=1000, show_default=True, help="Draws of the bootstrap.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option("--json", "json_file", type=FILE, help="Also write the comparison to this .json file.")
@click.option("--markdown", "markdown_file", type=FILE, help="Also write the tables to this .md file.")
@click.option("--latex", "latex_file", type=FILE, help="Also write the scores as a booktabs table to this .tex file.")
@click.option("--figures", type=FILE, help="Also draw the scores and differences into this folder, as PNG and PDF.")
def compare(
    folders: tuple[Path, ...],
    votes: tuple[Path, ...],
    all_pairs: bool,
    resamples: int,
    seed: int,
    **files: Path | None,
) -> None:
    """Compare the systems measured in FOLDERS, picture by picture: what differs, and whether it is more than chance.

    FOLDERS hold what d4k evaluate --output wrote; a folder of d4k benchmark stands for all of its models. The first
    system is compared with every other. Pictures belong together by prompt, or by the names of their files.

    \b
    Example:
      d4k compare scores/before scores/after
      d4k compare benchmark --votes anna.json --votes ben.json --latex table.tex --figures figures
    """
    from d4k.evaluation.compare import compare as compared
    from d4k.evaluation.figures import write_figures
    from d4k.evaluation.latex import latex_table
    from d4k.evaluation.systems import read_systems
    from d4k.evaluation.tables import comparison_table, write_comparison
    from d4k.evaluation.votes import count_votes, read_votes
    from d4k.files import write_text

    for option, ending in (("json_file", ".json"), ("markdown_file", ".md"), ("latex_file", ".tex")):
        file = files[option]
        if file is not None and file.suffix != ending:
            raise ConfigError(f"cannot write '{file.name}': the ending must be {ending}")
    systems = read_systems(folders)
    names = [system.name for system in systems]
    poll = count_votes([read_votes(path, names) for path in votes], names)
    rates = poll.rates
    found = compared(systems, all_pairs=all_pairs, resamples=resamples, seed=seed)
    if votes:
        found = evolve(found, remarks=(*found.remarks, *poll.remarks))
    click.echo(comparison_table(found, rates))
    evaluations = [system.evaluation for system in systems]
    for file in (files["json_file"], files["markdown_file"]):
        if file is not None:
            write_comparison(found, file, rates)
    if files["latex_file"] is not None:
        each = found if all_pairs else compared(systems, all_pairs=True, resamples=resamples, seed=seed)
        write_text(files["latex_file"], latex_table({e.name: e.scores for e in evaluations}, each))
    if files["figures"] is not None:
        write_figures(files["figures"], evaluations, found)
