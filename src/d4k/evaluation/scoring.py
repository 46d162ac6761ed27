"""From rows that are there to scores, with what was left out said in each."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from attrs import evolve
from torch import Tensor

from d4k.errors import DataError
from d4k.evaluation.faults import LEFT_OUT, Flaw, left_out_remark
from d4k.evaluation.needs import is_of_sets, is_of_whole_sets
from d4k.evaluation.observe import Task, decoded, rows_of
from d4k.evaluation.result import Evaluation, Fault, Picture
from d4k.evaluation.rows import Observer, Row, read_row
from d4k.evaluation.statistics import score_rows
from d4k.evaluation.survey import Item, Survey
from d4k.protocols import Metric, Score
from d4k.store import Store

if TYPE_CHECKING:
    from d4k.evaluation.measure import Measuring

__all__ = ["Scoring", "shown_path"]

BROKEN = ("truncated", "unreadable")
"""Kinds of flaws that show when a file is decoded: it is left out of all metrics."""


class Scoring:
    """Makes an `Evaluation` of rows that are in a store.

    Args:
        found: what was to be measured; faults that showed later are added to its own.
        metrics: name -> metric.
        observers: by name of each metric whose rows are kept.
        store: that holds the rows.
        settings: of the measurement.
    """

    def __init__(
        self,
        found: Survey,
        metrics: Mapping[str, Metric],
        observers: Mapping[str, Observer],
        store: Store,
        settings: Measuring,
    ) -> None:
        self.found, self.metrics, self.observers = found, metrics, observers
        self.store, self.settings = store, settings
        self._read: dict[str, Row] = {}
        self.items = self._whole(found.items, found.left)
        self.references = self._whole(found.references, found.left_references)

    def evaluation(self, device: torch.device) -> Evaluation:
        """Score every metric.

        Args:
            device: that metrics of whole sets compute on.

        Raises:
            DataError: a metric can measure no picture, or too few.
        """
        self.found.refuse(strict=False)
        rows: dict[str, list[Row]] = {}
        for name, metric in self.metrics.items():
            kept = name in self.observers
            rows[name] = self._rows(name, self.items) if kept else self._observe_whole(name, metric, device)
        self._blame(rows)
        against = {name: self._rows(name, self.references) for name in rows if is_of_sets(self.metrics[name])}
        scores = [self._score(name, rows[name], against.get(name)) for name in self.metrics]
        pictures = [self._picture(place, item, rows) for place, item in enumerate(self.items)]
        return Evaluation(
            name=self.settings.name,
            scores=tuple(scores),
            pictures=tuple(pictures),
            faults=tuple(
                Fault(self._shown(file), one.kind, one.reason, one.kind in LEFT_OUT) for file, one in self.faults
            ),
            references={name: tuple(item.keys[name] for item in self.references) for name in against},
            rows="" if self.settings.kept is None else self._shown(self.settings.kept),
            about=dict(self.settings.about),
        )

    @property
    def faults(self) -> list[tuple[Path, Flaw]]:
        """All that is wrong with files."""
        return self.found.faults

    def _whole(self, items: list[Item], left: list[str]) -> list[Item]:
        """The items that could be decoded; the others are named and taken from the survey."""
        whole = []
        for item in items:
            flaws = [row for name in item.keys if isinstance(row := self._row(name, item), Flaw)]
            broken = next((flaw for flaw in flaws if flaw.kind in BROKEN), None)
            if broken is None:
                whole.append(item)
            else:
                self.faults.append((item.subject.file, broken))
                left.append(broken.kind)
        items[:] = whole
        return whole

    def _row(self, name: str, item: Item) -> Row:
        key = item.keys[name]
        if key not in self._read:  # metrics of one observation share their rows
            self._read[key] = read_row(self.store, key, f"picture {item.subject.file} ({name})")
        return self._read[key]

    def _rows(self, name: str, items: Sequence[Item]) -> list[Row]:
        return [self._row(name, item) for item in items]

    def _observe_whole(self, name: str, metric: Metric, device: torch.device) -> list[Row]:
        """Show a metric of whole sets all pictures in their order."""
        metric.load(device)
        observer, rows = Observer(name, metric), list[Row]()
        tasks = [Task(item.look, item.subject.prompt, item.reference, {name: observer}) for item in self.items]
        for shown in decoded(tasks, self.settings.threads):
            rows += rows_of(observer, [shown])
        return rows

    def _blame(self, rows: Mapping[str, Sequence[Row]]) -> None:
        """Name the pictures that some metrics could not measure."""
        for place, item in enumerate(self.items):
            said: dict[str, list[str]] = {}
            for name, found in rows.items():
                if isinstance(flaw := found[place], Flaw):
                    said.setdefault(flaw.reason, []).append(name)
            for reason, names in said.items():
                words = f"{' and '.join(names)} cannot measure it: {reason}"
                self.faults.append((item.subject.file, Flaw("unmeasurable", words)))

    def _score(self, name: str, rows: Sequence[Row], references: Sequence[Row] | None) -> Score:
        metric = self.metrics[name]
        good, flaws = _apart(rows)
        if not good:
            raise DataError(f"{name} can measure none of {len(rows)} pictures: {flaws[0].reason}")
        against, lost = _apart(references or ())
        resamples = 0 if is_of_whole_sets(metric) else self.settings.resamples
        try:
            score = score_rows(name, metric, good, against or None, resamples=resamples, seed=self.settings.seed)
        except DataError as error:
            said = str(error)
            raise DataError(said if said.startswith(name) else f"{name}: {said}") from error
        remarks = list(score.remarks)
        if kinds := [*self.found.left, *(flaw.kind for flaw in flaws)]:
            remarks.append(left_out_remark(kinds, self.found.count))
        if references is not None and (kinds := [*self.found.left_references, *(flaw.kind for flaw in lost)]):
            remarks.append(left_out_remark(kinds, self.found.count_references, "reference picture"))
        return evolve(score, remarks=tuple(remarks))

    def _picture(self, place: int, item: Item, rows: Mapping[str, Sequence[Row]]) -> Picture:
        keys = {name: key for name, key in item.keys.items() if isinstance(rows[name][place], Tensor)}
        alone = {
            name: _value(self.metrics[name], row)
            for name, found in rows.items()
            if isinstance(row := found[place], Tensor) and name in keys and not is_of_sets(self.metrics[name])
        }
        subject = item.subject
        return Picture(
            id=subject.id,
            file=self._shown(subject.file),
            sha256=item.look.sha256,
            width=item.look.width,
            height=item.look.height,
            prompt=subject.prompt,
            seed=subject.seed,
            reference=None if subject.reference is None else self._shown(subject.reference),
            values={name: value for name, value in alone.items() if value is not None},
            keys=keys,
        )

    def _shown(self, path: Path) -> str:
        return shown_path(path, self.settings.output, self.settings.kept)


def shown_path(path: Path, output: Path | None, store: Path | None) -> str:
    """A path as `scores.json` names it: relative to its folder where both are below what they share, else absolute.

    Args:
        path: of a file or a folder.
        output: folder of `scores.json`; None names the path as it was given.
        store: folder of the rows. What lies beside it, or beside the output, goes along when it is moved.
    """
    if output is None:
        return str(path)
    here, there = output.absolute(), Path(os.path.normpath(path.absolute()))
    for shared in (here.parent, *(() if store is None else (store.absolute().parent,))):
        if there.is_relative_to(os.path.normpath(shared)):
            return Path(os.path.relpath(there, here)).as_posix()
    return there.as_posix()


def _apart(rows: Sequence[Row]) -> tuple[list[Tensor], list[Flaw]]:
    return [row for row in rows if isinstance(row, Tensor)], [row for row in rows if isinstance(row, Flaw)]


def _value(metric: Metric, row: Tensor) -> float | None:
    """The score of one picture; None where a metric says nothing of one."""
    try:
        found = metric.score(row)
    except DataError:
        return None
    value = float(next(iter(found.values())) if isinstance(found, Mapping) else found)
    return value if math.isfinite(value) else None
