"""The report: one folder that any browser opens from the disk, with no network.

REPORT/
  index.html  *.js  style.css          the page
  openseadragon.min.js  licences.txt   its viewer, and the licences of all that is shown
  data.js                              what the page shows, see `d4k.report.data`
  tiles/  thumbs/  heat/               pictures
  table.md  table.tex  scores.json  comparison.json  figures/    for papers and programs
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from d4k import __version__
from d4k.errors import D4KError, DataError, OutputError
from d4k.evaluation import Evaluation
from d4k.evaluation.agreement import metric_of
from d4k.evaluation.compare import compare
from d4k.evaluation.difference import Comparison
from d4k.evaluation.systems import System
from d4k.evaluation.votes import Poll, count_votes, read_votes
from d4k.files import atomic_folder, is_folder, refuse_unwritable, sweep, write_text
from d4k.report import openseadragon, summary
from d4k.report.data import PREFIX, LicenceData, ReportData, RowData, SetData, script
from d4k.report.exports import write_exports
from d4k.report.patches import PatchScorer, make_scorers
from d4k.report.pictures import Studio
from d4k.report.sources import Row, Source, check_files, find_sources, pair, with_photographs

__all__ = ["DATA", "write_report"]

DATA = "data.js"
ASSETS = Path(__file__).parent / "assets"
PAGE = (".html", ".css", ".js")
"""Endings of the files of the page."""

OURS = re.compile(
    r"index\.html|style\.css|[a-z0-9.]+\.js|licences\.txt|table\.(md|tex)|(scores|comparison)\.json"
    r"|tiles/[0-9a-f]{32}/[0-9]+/[0-9]+_[0-9]+\.(png|jpg)|thumbs/[0-9a-f]{32}\.jpg"
    r"|heat/[a-z0-9-]+/[0-9]+-[a-z0-9-]+\.png|figures/(scores|differences|histograms)\.(png|pdf)"
)
"""The files of a report, this one's and those of earlier versions, by their paths in it."""


def write_report(output: Path, folders: Sequence[Path], *, title: str | None = None, votes: Path | None = None) -> Path:
    """Write a report of evaluations, whole or not at all.

    Tiles of an earlier report in the same folder are taken over where the pictures are the same.

    Args:
        output: folder to write; an earlier report is replaced, anything else refused.
        folders: of evaluations (they hold `scores.json`), or of benchmarks, which stand for their photographs and all
            of their models.
        title: of the page.
        votes: file that the page exported, with what people preferred.

    Returns:
        `index.html`, for a browser.

    Raises:
        ConfigError: the evaluations were made with different settings.
        DataError: a folder is no evaluation, or pictures are gone or were changed.
        OutputError: `output` holds something else or cannot be written, or OpenSeadragon cannot be had.
    """
    refuse_other(output)
    viewer = _viewer()
    content = _read(folders, votes)
    sweep(output.parent)
    with atomic_folder(output) as new:
        studio = Studio(new, output, content.scorers)
        rows = studio.rows(content.rows, [column.id for column in content.sets])
        data = content.report(title or "d4k report", rows, studio.notes(), viewer)
        for file in [*_page(), viewer / openseadragon.SCRIPT]:
            shutil.copyfile(file, new / file.name)
        write_text(new / DATA, script(data))
        write_text(new / "licences.txt", _licence_text(data.licences))
        write_exports(new, content.evaluations, content.comparison, () if content.poll is None else content.poll.rates)
    return output / "index.html"


@frozen
class _Content:
    """What a report shows, read and checked; nothing is written yet."""

    columns: list[Source]
    photographs: Source | None
    rows: list[Row]
    comparison: Comparison | None
    poll: Poll | None
    scorers: list[PatchScorer]
    notes: list[str]

    @property
    def evaluations(self) -> list[Evaluation]:
        return [column.evaluation for column in self.columns if column.evaluation is not None]

    @property
    def sets(self) -> list[SetData]:
        return summary.sets(self.columns, self.photographs)

    def report(self, title: str, rows: Sequence[RowData], notes: Sequence[str], viewer: Path) -> ReportData:
        names = list(summary.first_scores(self.evaluations))
        licence = (viewer / openseadragon.LICENCE).read_text(encoding="utf-8")
        return ReportData(
            title,
            datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            __version__,
            tuple(self.sets),
            tuple(summary.metrics(self.evaluations, self.scorers)),
            tuple(summary.scores(self.columns, names)),
            tuple(summary.comparisons(self.columns, self.comparison)),
            tuple(rows),
            tuple(summary.faults(self.columns)),
            summary.histograms(self.columns, names),
            tuple(summary.licences(self.columns, licence, openseadragon.VERSION)),
            (*self.notes, *notes),
            _votes(self.poll),
        )


def _read(folders: Sequence[Path], votes: Path | None) -> _Content:
    """Read and check everything that a report shows, before anything is drawn."""
    sources = find_sources(folders)
    photographs, others = with_photographs(sources)
    columns = [*([] if photographs is None else [photographs]), *others]
    names = [column.name for column in columns]
    poll = None if votes is None else count_votes([read_votes(votes, names)], names)
    comparison, undecided = _compared(columns)
    rows = check_files(pair(photographs, others), names)
    known = summary.first_scores([column.evaluation for column in columns if column.evaluation is not None])
    scorers, unscored = make_scorers(list(known.values()))
    return _Content(columns, photographs, rows, comparison, poll, scorers, [*undecided, *unscored])


def _compared(columns: Sequence[Source]) -> tuple[Comparison | None, list[str]]:
    """The differences of every two columns, and sentences about what is missing."""
    systems = [column.system for column in columns if column.system is not None]
    if len(systems) < 2:
        return None, []
    known, notes = [], []
    for name, score in summary.first_scores([system.evaluation for system in systems]).items():
        try:
            metric_of(score, {})
        except D4KError as error:
            notes.append(f"No differences of {name}: {error}")
        else:
            known.append(name)
    comparison = None
    try:
        comparison = compare([_only(system, known) for system in systems], all_pairs=True) if known else None
    except DataError as error:  # that settings differ is a ConfigError, and refused
        notes.append(f"No differences: {error}")
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return comparison, [*notes, *(() if comparison is None else comparison.remarks)]


def _only(system: System, names: Sequence[str]) -> System:
    """A system without the scores of other metrics."""
    scores = tuple(score for score in system.evaluation.scores if score.metric in names)
    return attrs.evolve(system, evaluation=attrs.evolve(system.evaluation, scores=scores))


def refuse_other(output: Path) -> None:
    """Accept a folder that is new, empty or an earlier report.

    Raises:
        OutputError: it is something else, holds files that d4k did not write, or cannot be written.
    """
    refuse_unwritable(output.parent)
    if not output.exists() or (is_folder(output, OutputError) and not any(output.iterdir())):
        return
    try:
        with (output / DATA).open(encoding="utf-8") as file:
            earlier = file.read(len(PREFIX)) == PREFIX
    except (OSError, ValueError):
        earlier = False
    if not earlier:
        raise OutputError(f"{output} exists and is no report of d4k; name another folder: --output FOLDER")
    files = (p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_symlink() or not p.is_dir())
    foreign = min((name for name in files if not OURS.fullmatch(name)), default=None)
    if foreign is not None:
        raise OutputError(
            f"{output} is a report that would be replaced, but it also holds {foreign}, which d4k did not write; "
            "move it away, or name another folder: --output FOLDER"
        )


def _votes(poll: Poll | None) -> dict[str, Any] | None:
    """Win rates as names and values, and below them who voted; None where nobody was asked."""
    if poll is None or not poll.count:
        return None
    found: dict[str, Any] = {
        f"{rate.a} preferred to {rate.b}": {
            "share": rate.rate,
            "95 % interval": list(rate.interval),
            "more than chance": "yes" if rate.real else "no",
            "votes": rate.count,
            "for": rate.wins,
            "against": rate.losses,
            "ties": rate.ties,
        }
        for rate in poll.rates
    }
    found["people who voted"] = poll.voters
    if poll.repeated:
        found["votes replaced by a later one of the same person"] = poll.repeated
    if poll.left is not None:
        found["left picture preferred"] = {
            "share": poll.left.rate,
            "95 % interval": list(poll.left.interval),
            "more than chance": "yes" if poll.left.real else "no",
        }
    return found


def _viewer() -> Path:
    try:
        return openseadragon.locate()
    except openseadragon.OpenSeadragonError as error:
        raise OutputError(str(error)) from error


def _page() -> list[Path]:
    return sorted(path for path in ASSETS.iterdir() if path.suffix in PAGE and path.name != openseadragon.SCRIPT)


def _licence_text(licences: Sequence[LicenceData]) -> str:
    return (
        "\n\n".join(f"{licence.name}\n{'-' * len(licence.name)}\n{licence.text.strip()}" for licence in licences) + "\n"
    )
