"""From pictures to an `Evaluation`: looked at, observed where rows are missing, and scored.

    subjects ─ survey ─► items and faults ─ observe ─► rows in the store ─ score_rows ─► scores

Several processes of a launch observe a share each; the first waits for the others' rows, and scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from attrs import field, frozen

from d4k.errors import DataError
from d4k.evaluation.faults import left_out_remark
from d4k.evaluation.needs import check_needs, is_of_sets
from d4k.evaluation.observe import Task, observe
from d4k.evaluation.result import Evaluation, write_evaluation
from d4k.evaluation.rows import Observer, find_observers, open_rows
from d4k.evaluation.scoring import Scoring
from d4k.evaluation.subjects import Subject
from d4k.evaluation.survey import Survey, survey
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
        Scores, a line a picture, and what was wrong with files; `output` holds the same as `scores.json`.

    Raises:
        ConfigError: a metric needs something that was not given; nothing has been computed.
        DataError: no picture can be measured, a reference has another size than its picture, or `strict` is set and
            something is wrong with a file.
        OutputError: the output cannot be written.
    """
    settings = settings or Measuring()
    check_needs(
        metrics,
        prompts=any(subject.prompt is not None for subject in subjects),
        reference=any(subject.reference is not None for subject in subjects),
        references=bool(settings.references),
    )
    observers = find_observers({name: metric for name, metric in metrics.items() if not _is_whole(metric)})
    found = survey(subjects, metrics, observers, settings.references, settings.threads)
    found.refuse(settings.strict)
    device = choose_device(settings.device)
    with _opened(settings.kept) as store:
        observe(_missing(found, store), store, _Loader(device), workers=settings.threads)
        if settings.kept is not None:
            compact(store)
        result = Scoring(found, metrics, observers, store, device, settings).evaluation()
    if settings.output is not None:
        write_evaluation(settings.output, result)
    return result


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
        yield open_rows(folder)
        return
    with TemporaryDirectory(prefix="d4k-rows-") as temporary:
        store = open_rows(Path(temporary))
        try:
            yield store
        finally:
            store.index.close()
