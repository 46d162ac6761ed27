"""From pictures to an `Evaluation`: looked at, observed where rows are missing, and scored.

    subjects ─ survey ─► items and faults ─ observe ─► rows in the store ─ score_rows ─► scores

Several processes of a launch observe a share each; the first waits for the others' rows, and scores.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from attrs import evolve, field, frozen

from d4k.errors import ConfigError
from d4k.evaluation.needs import check_needs, is_of_whole_sets
from d4k.evaluation.observe import Task, observe
from d4k.evaluation.result import Evaluation, write_evaluation
from d4k.evaluation.rows import Observer, find_observers, open_rows
from d4k.evaluation.scoring import Scoring
from d4k.evaluation.shares import Process, share_out, this_process
from d4k.evaluation.subjects import Subject
from d4k.evaluation.survey import survey
from d4k.evaluation.torchmetrics import as_metric
from d4k.machine import choose_device
from d4k.protocols import Metric
from d4k.store import Store, compact

__all__ = ["ROWS", "Measuring", "measure"]

ROWS = "rows"
"""Folder of the store in that of the output, where no other is named."""


@frozen
class Measuring:
    """How a set is measured.

    Args:
        output: folder of `scores.json`; None writes none.
        store: folder where rows are kept; None is `rows` in `output`, or keeps none.
        references: the set of reference pictures, for metrics that compare sets.
        device: of torch, that networks compute on; None is the first of CUDA, MPS and CPU.
        resamples: of the bootstrap; 0 leaves intervals out.
        seed: of the bootstrap.
        strict: raise for any fault of a file.
        workers: threads that decode; None is one a core.
        name: of the system that made the pictures.
        about: what else a reader should know of it; plain values.
    """

    output: Path | None = None
    store: Path | None = None
    references: Sequence[Path] = ()
    device: str | None = None
    resamples: int = 1000
    seed: int = 0
    strict: bool = False
    workers: int | None = None
    name: str = ""
    about: Mapping[str, Any] = field(factory=dict)

    @property
    def kept(self) -> Path | None:
        """Where rows are kept; None keeps none."""
        return self.store or (None if self.output is None else self.output / ROWS)

    @property
    def threads(self) -> int:
        """That decode."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(32, cores) if self.workers is None else max(1, self.workers)


def measure(
    subjects: Sequence[Subject], metrics: Mapping[str, Metric], settings: Measuring | None = None
) -> Evaluation:
    """Measure a set of pictures with some metrics.

    Args:
        subjects: the pictures.
        metrics: name -> metric.
        settings: how.

    Returns:
        Scores, a line a picture, and what was wrong with files; `output` holds the same as `scores.json`. Where rows
        are kept, the processes of a launch observe a share each: the first returns all of this, and the others
        return an Evaluation without scores when their shares are done.

    Raises:
        ConfigError: a metric needs something that was not given; nothing has been computed.
        DataError: no picture can be measured, a reference has another size than its picture, or `strict` is set and
            something is wrong with a file.
        OutputError: the output cannot be written.
    """
    settings = settings or Measuring()
    if settings.resamples < 0:
        raise ConfigError(f"resamples must be a whole number of at least 0, got {settings.resamples}")
    metrics = {name: as_metric(metric) for name, metric in metrics.items()}
    check_needs(
        metrics,
        prompts=any(subject.prompt is not None for subject in subjects),
        reference=any(subject.reference is not None for subject in subjects),
        references=bool(settings.references),
    )
    observers = find_observers({name: metric for name, metric in metrics.items() if not is_of_whole_sets(metric)})
    found = survey(subjects, metrics, observers, settings.references, settings.threads)
    found.refuse(strict=settings.strict)
    device = choose_device(settings.device)
    process = Process() if settings.kept is None else this_process()
    with _opened(settings.kept) as store:
        load = _Loader(device)

        def observe_missing(tasks: Sequence[Task]) -> None:
            observe(_missing(tasks, store), store, load, workers=settings.threads, quiet=not process.first)

        share_out(found.tasks(observers), store, process, observe_missing)
        if not process.first:
            return Evaluation(settings.name, ())
        if settings.kept is not None:
            compact(store)
        scoring = Scoring(found, metrics, observers, store, settings)
        found.refuse(strict=settings.strict)
        result = scoring.evaluation(device)
        found.refuse(strict=settings.strict)
    if settings.output is not None:
        write_evaluation(settings.output, result)
    return result


def _missing(tasks: Sequence[Task], store: Store) -> list[Task]:
    """What of the tasks is not in the store."""
    missing = set(store.missing(key for task in tasks for key in task.wanted))
    lacking = (evolve(task, wanted={k: one for k, one in task.wanted.items() if k in missing}) for task in tasks)
    return [task for task in lacking if task.wanted]


class _Loader:
    """Loads each metric once, when it is first to observe."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.loaded: set[str] = set()

    def __call__(self, observer: Observer) -> None:
        if observer.id not in self.loaded:
            observer.metric.load(self.device)
            self.loaded.add(observer.id)


@contextmanager
def _opened(folder: Path | None) -> Iterator[Store]:
    """The store in a folder, or in one that is removed afterwards."""
    if folder is not None:
        store = open_rows(folder)
        for note in store.notes:
            warnings.warn(note, stacklevel=2)
        yield store
        return
    with TemporaryDirectory(prefix="d4k-rows-") as temporary:
        store = open_rows(Path(temporary))
        try:
            yield store
        finally:
            store.index.close()
