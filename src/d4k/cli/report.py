"""`d4k report`."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["report"]


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("report"),
    help="Write the report into this folder; an earlier report in it is replaced. [default: report]",
)
@click.option("--title", help="Show this at the top of the page. [default: d4k report]")
@click.option(
    "--votes",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Show what people preferred: a file that the page of an earlier report exported.",
)
def report(folders: tuple[Path, ...], output: Path, title: str | None, votes: Path | None) -> None:
    """Make a report of evaluations: one folder that any browser opens from the disk, with no network.

    Each DIR was written by d4k evaluate --output or by d4k benchmark, which stands for its photographs and all of its
    models. Open index.html in the folder of the report.

    \b
    Example:
      d4k report scores/before scores/after --output report
      d4k report benchmark --title "Aesthetic-4K at 2048"
    """
    from d4k.report import write_report

    click.echo(write_report(output, folders, title=title, votes=votes))
