"""The whole of a build: list, download, scan, decide, write."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from d4k.datasets.build.alike import alike, fingerprint_key
from d4k.datasets.build.decide import decide
from d4k.datasets.build.engines import Engine, check_engine, default_workers
from d4k.datasets.build.extras import need_pyarrow
from d4k.datasets.build.figures import choose
from d4k.datasets.build.log import Facts, ScanLog
from d4k.datasets.build.look import Looker
from d4k.datasets.build.place import place_pictures, remove_others
from d4k.datasets.build.records import Counts, write_records
from d4k.datasets.build.scan import Scan
from d4k.datasets.build.settings import BuildSettings
from d4k.datasets.build.sources import list_sources
from d4k.datasets.build.sources.downloads import Fetch, download_all
from d4k.datasets.build.values import Decision
from d4k.errors import ConfigError
from d4k.files import refuse_used
from d4k.locks import held, output_errors

__all__ = ["DOWNLOADS", "LOG", "Built", "build"]

LOG, LOCK, DOWNLOADS = "scan.jsonl", ".build.lock", "downloads"


@frozen
class Built:
    """What came of a build.

    Args:
        folder: the dataset.
        decisions: on every picture, in the order of the sources.
        counts: of these.
        read: files that were read; the others had not changed since they last were.
        decoded: files of these that were decoded, too.
    """

    folder: Path
    decisions: tuple[Decision, ...]
    counts: Counts
    read: int
    decoded: int


def build(
    sources: Sequence[str | Path],
    output: str | Path,
    settings: BuildSettings | None = None,
    *,
    engine: Engine = "process",
    workers: int | None = None,
    quiet: bool = False,
) -> Built:
    """Make a dataset of pictures, with a reason for each that is left out.

    Run again, it goes on where it was interrupted, looks at new and changed pictures only, and decides anew on all.

    Args:
        sources: folders, pictures, tables (`.parquet`, `.csv`) of paths or URLs, and ids of datasets on the Hub.
        output: folder of the dataset; new, or of an earlier build.
        settings: what decides; None is the defaults.
        engine: "process" for a pool of processes, or "ray" for Ray Data.
        workers: processes that look at pictures; None is one a processor.
        quiet: show no progress.

    Returns:
        What came of it; the dataset is in `output`.

    Raises:
        ConfigError: a setting or an option of a filter is not allowed, or a package is not installed.
        DataError: a source cannot be read, or holds no picture.
        OutputError: the folder holds something else, another build is writing into it, or the disk is full.
    """
    settings = settings or BuildSettings()
    folder = Path(output).expanduser()
    workers = default_workers() if workers is None else workers
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ConfigError(f"workers is {workers!r}; it must be a whole number, at least 1")
    need_pyarrow()
    check_engine(engine)
    chosen = [choose(name, options) for name, options in settings.used.items()]
    if not (folder / LOG).is_file():
        refuse_used(folder, besides=(LOCK,))
    listing = list_sources(sources, folder)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    looker = Looker({one.key: one.filter for one in chosen}, fingerprint_key(), settings.max_pixels)
    with held(folder / LOCK, f"another build is writing into {folder}; wait for it"), ScanLog.open(folder / LOG) as log:
        fetch = Fetch(folder / DOWNLOADS, int(settings.max_download_mb * 1e6))
        pictures = download_all(listing.pictures, fetch, quiet=quiet)
        scanned = Scan(log, looker, chosen, engine, workers, quiet)(pictures)
        groups = alike(scanned.seen, settings.duplicate_distance)
        decisions = decide(pictures, scanned.seen, chosen, groups, settings)
        counts = Counts.of(decisions, chosen, listing.others)
        _warn_of_eval(counts, settings)
        place_pictures(
            folder,
            decisions,
            settings.place,
            lambda path, digest: log.digest(str(path), Facts.of(path)) == digest,
            quiet=quiet,
        )
        write_records(folder, decisions, chosen, settings, counts)
        remove_others(folder, [decision.file_name for decision in decisions if decision.file_name])
    return Built(folder, tuple(decisions), counts, scanned.read, scanned.decoded)


def _warn_of_eval(counts: Counts, settings: BuildSettings) -> None:
    kept = counts.outcomes["kept"]
    if settings.eval >= 1 and settings.eval >= kept:
        warnings.warn(
            f"eval = {settings.eval:g} wants as many pictures as were kept or more, {kept}; none is left to train on",
            stacklevel=3,
        )
