"""The rows of a benchmark, measured with one store for all, so that no picture is measured twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d4k.benchmark.begin import Begun
from d4k.benchmark.metrics import of_photographs
from d4k.benchmark.plan import PHOTOGRAPHS, ROWS, Plan, Row
from d4k.errors import DataError
from d4k.evaluation import Evaluation, Measuring, Subject, measure
from d4k.plugins import create
from d4k.protocols import Metric
from d4k.sampling import name_files

__all__ = ["measure_photographs", "measure_row"]


LOST = ("missing", "empty", "unreadable", "truncated", "giant")
"""Kinds of faults that no picture has which was made here."""


def measure_photographs(output: Path, plan: Plan, begun: Begun) -> Evaluation | None:
    """The scores of the pictures of the dataset; None where every metric compares with them."""
    metrics = of_photographs(_metrics(plan, begun))
    if not metrics:
        return None
    folder = output / PHOTOGRAPHS
    subjects = [Subject(found.id, folder / found.name, prompt=found.caption) for found in begun.photographs]
    return _whole(
        folder, measure(subjects, metrics, _measuring(output, plan, folder, PHOTOGRAPHS, about_dataset(plan)))
    )


def measure_row(output: Path, plan: Plan, begun: Begun, row: Row) -> Evaluation:
    """The scores of the pictures of a model, or of those that were enlarged."""
    subjects = [
        Subject(
            found.id,
            target.file,
            prompt=target.job.prompt,
            seed=target.job.seed,
            reference=output / PHOTOGRAPHS / found.name,
        )
        for found, target in zip(begun.photographs, name_files(row.pictures(output), plan.jobs), strict=True)
    ]
    references = [output / PHOTOGRAPHS / found.name for found in begun.photographs]
    settings = _measuring(output, plan, row.folder(output), row.name, about_row(plan, row), references)
    return _whole(row.folder(output), measure(subjects, _metrics(plan, begun), settings))


def _whole(folder: Path, evaluation: Evaluation) -> Evaluation:
    """An evaluation, unless it rests without a picture that this benchmark made."""
    lost = next((fault for fault in evaluation.faults if fault.kind in LOST), None)
    if lost is not None:
        raise DataError(
            f"{folder / lost.file} cannot be measured: {lost.reason} Remove it, and run again to make it anew"
        )
    return evaluation


def _metrics(plan: Plan, begun: Begun) -> dict[str, Metric]:
    options = plan.settings.metric_options
    return {name: create("metric", name, **options.get(name, {})) for name in begun.metrics}


def _measuring(
    output: Path, plan: Plan, folder: Path, name: str, about: Mapping[str, Any], references: list[Path] | None = None
) -> Measuring:
    return Measuring(
        output=folder,
        store=output / ROWS,
        references=references or [],
        device=plan.settings.loading.device,
        resamples=plan.settings.resamples,
        name=name,
        about=about,
    )


def about_dataset(plan: Plan) -> dict[str, Any]:
    """What a reader should know of the photographs."""
    split = {} if plan.settings.split is None else {"split": plan.settings.split}
    return {"dataset": plan.settings.dataset, **split, "size": f"{plan.width}x{plan.height}"}


def about_row(plan: Plan, row: Row) -> dict[str, Any]:
    """What a reader should know of the pictures of a model."""
    settings = row.settings
    sampled = f"{settings.width}x{settings.height}"
    enlarged = {"sampled at": sampled, "upscaler": plan.upscaler} if row.upscaled else {}
    return {
        "model": row.entrant.ref.name,
        **about_dataset(plan),
        **enlarged,
        "steps": settings.steps,
        "guidance": settings.guidance,
        "shift": settings.shift,
        "seed": plan.settings.seed,
    }
