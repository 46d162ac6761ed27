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
from d4k.evaluation.observe import Task, decoded, flaw_of, rows_of
from d4k.evaluation.result import Evaluation, Fault, Picture, plain
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
        self._flawed = set[str]()  # keys that have no row
        self.items = self._whole(found.items, found.left)
        self.references = self._whole(found.references, found.left_references)

    def evaluation(self, device: torch.device) -> Evaluation:
        """Score one metric after the other, so that the rows of one are held at a time.

        Args:
            device: that metrics of whole sets compute on.

        Raises:
            DataError: a metric can measure no picture, or too few.
        """
        scores = list[Score]()
        values: list[dict[str, float]] = [{} for _ in self.items]
        said: list[dict[str, list[str]]] = [{} for _ in self.items]
        for name, metric in self.metrics.items():
            kept = name in self.observers
            rows = self._rows(name, self.items) if kept else self._observe_whole(name, metric, device)
            against = self._rows(name, self.references) if is_of_sets(metric) else None
            scores.append(self._score(name, rows, against))
            for place, row in enumerate(rows):
                if isinstance(row, Flaw):
                    said[place].setdefault(row.reason, []).append(name)
                elif kept and against is None and (value := _value(metric, row)) is not None:
                    values[place][name] = value
            self._blame(
                self.references, [{row.reason: [name]} if isinstance(row, Flaw) else {} for row in against or ()]
            )
        self._blame(self.items, said)
        return self._made(scores, values)

    def _whole(self, items: list[Item], left: list[str]) -> list[Item]:
        """The items that could be decoded; the others are named and taken from the survey."""
        whole = []
        for item in items:
            found = {key: self._row(name, item) for name, key in item.keys.items()}
            flaws = {key: row for key, row in found.items() if isinstance(row, Flaw)}
            self._flawed |= flaws.keys()
            broken = next((flaw for flaw in flaws.values() if flaw.kind in BROKEN), None)
            if broken is None:
                whole.append(item)
            else:
                self.found.faults.append((item.subject.file, broken))
                left.append(broken.kind)
        items[:] = whole
        return whole

    def _row(self, name: str, item: Item) -> Row:
        return read_row(self.store, item.keys[name], f"picture {item.subject.file} ({name})")

    def _rows(self, name: str, items: Sequence[Item]) -> list[Row]:
        return [self._row(name, item) for item in items]

    def _observe_whole(self, name: str, metric: Metric, device: torch.device) -> list[Row]:
        """Show a metric of whole sets all pictures in their order."""
        metric.load(device)
        observer, rows = Observer(name, metric), list[Row]()
        tasks = [Task(item.look, item.subject.prompt, item.reference, {name: observer}) for item in self.items]
        for shown in decoded(tasks, self.settings.threads):
            found = flaw_of(observer, shown)
            rows += rows_of(observer, [shown]) if found is None else [found]
        return rows

    def _blame(self, items: Sequence[Item], said: Sequence[Mapping[str, Sequence[str]]]) -> None:
        """Name the pictures that some metrics could not measure, each with the metrics by reason."""
        for item, reasons in zip(items, said, strict=False):
            for reason, names in reasons.items():
                words = f"{' and '.join(names)} cannot measure it: {reason}"
                self.found.faults.append((item.subject.file, Flaw("unmeasurable", words)))

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
        return evolve(score, settings=plain(score.settings), remarks=tuple(remarks))

    def _made(self, scores: Sequence[Score], values: Sequence[Mapping[str, float]]) -> Evaluation:
        sets = [name for name, metric in self.metrics.items() if is_of_sets(metric)]
        return Evaluation(
            name=self.settings.name,
            scores=tuple(scores),
            pictures=tuple(self._picture(item, one) for item, one in zip(self.items, values, strict=True)),
            faults=tuple(
                Fault(self._shown(file), flaw.kind, flaw.reason, flaw.kind in LEFT_OUT)
                for file, flaw in self.found.faults
            ),
            references={name: self._reference_keys(name) for name in sets},
            rows="" if self.settings.kept is None else self._shown(self.settings.kept),
            about=plain(self.settings.about),
        )

    def _reference_keys(self, name: str) -> tuple[str, ...]:
        return tuple(item.keys[name] for item in self.references if item.keys[name] not in self._flawed)

    def _picture(self, item: Item, values: Mapping[str, float]) -> Picture:
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
            values=values,
            keys={name: key for name, key in item.keys.items() if key not in self._flawed},
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
    path = Path(os.fsencode(path).decode(errors="backslashreplace"))  # JSON holds no name that is not UTF-8
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
