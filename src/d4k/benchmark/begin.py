"""The beginning of a benchmark in its folder: everything is hashed, compared with the manifest, and written to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from d4k.benchmark.entrants import file_digests, weights_of
from d4k.benchmark.manifest import (
    check_manifest,
    check_pictures,
    code_versions,
    plain,
    read_manifest,
    write_manifest,
)
from d4k.benchmark.metrics import choose_metrics, metric_record
from d4k.benchmark.photographs import Photograph, look_at_photographs, warn_of_small
from d4k.benchmark.plan import PHOTOGRAPHS, Plan, entrant_record
from d4k.errors import OutputError
from d4k.files import refuse_unwritable, refuse_used, sweep
from d4k.locks import held
from d4k.plugins import create
from d4k.protocols import Metric

__all__ = ["Begun", "beginning"]

LOCK = ".d4k-benchmark.lock"


@frozen
class Begun:
    """What the first process of a launch tells the others.

    Args:
        photographs: of the dataset, in its order.
        metrics: names of those that are measured.
    """

    photographs: tuple[Photograph, ...]
    metrics: tuple[str, ...]


@contextmanager
def beginning(output: Path, plan: Plan, say: Callable[[str], object]) -> Iterator[Begun]:
    """Check and write the manifest, and hold the folder; one process of a launch does so.

    Args:
        output: folder of the benchmark.
        plan: what is going to be done.
        say: receives what happens, a line at a time.

    Raises:
        OutputError: the folder is in use, holds something else, a benchmark of other settings, or a picture that was
            changed since, or cannot be written.
        DataError: a picture of the dataset cannot be used.
        CheckpointError: a model, or a metric that was named, cannot be had.
        ConfigError: no metric can be measured.
    """
    before = read_manifest(output)
    if before is None:
        refuse_used(output, {LOCK})
        refuse_unwritable(output)
    else:
        _check_files(output, before.get("pictures", {}))
    known = [entry["name"] for entry in (before or {}).get("metrics", ())]
    metrics = choose_metrics(plan.settings, known)
    photographs = look_at_photographs(plan.samples)
    now = _content(plan, photographs, metrics)
    if before is not None:
        check_manifest(output, before, now)
    warn_of_small(photographs, plan.width, plan.height)
    for line in _announce(plan):
        say(line)
    output.mkdir(parents=True, exist_ok=True)
    with held(output / LOCK, f"another d4k benchmark is working in {output} at this moment; wait until it ends"):
        for folder in _folders(output, plan):
            sweep(folder)  # what a killed process was writing
        write_manifest(output, {**now, "pictures": (before or {}).get("pictures", {})})
        yield Begun(tuple(photographs), tuple(metrics))


def _folders(output: Path, plan: Plan) -> Iterator[Path]:
    """Every folder that files are written into."""
    yield from (output, output / PHOTOGRAPHS)
    for row in plan.rows:
        yield from {row.folder(output), row.sampled(output), row.pictures(output)}


def _content(plan: Plan, photographs: list[Photograph], metrics: Mapping[str, Metric]) -> Any:
    record, settings = plan.record, plan.settings
    upscaler = create("upscaler", settings.upscaler, **settings.upscaler_options)
    return plain(
        {
            **record,
            "dataset": {**record["dataset"], "pictures": [found.record for found in photographs]},
            "metrics": [metric_record(name, metric) for name, metric in metrics.items()],
            "models": [entrant_record(entrant, weights_of(entrant.loaded.model)) for entrant in plan.entrants],
            "versions": code_versions(getattr(upscaler, "packages", ())),
        }
    )


def _check_files(output: Path, pictures: Mapping[str, str]) -> None:
    """Refuse pictures that were changed since they were measured; those that are gone are made again."""
    there = [file for file in pictures if (output / file).is_file()]
    found = file_digests([output / file for file in there], OutputError)
    check_pictures(output, pictures, dict(zip(there, found, strict=True)))


def _announce(plan: Plan) -> Iterator[str]:
    count = len(plan.samples)
    yield f"{count} picture{'s' * (count != 1)} of {plan.settings.dataset}, {plan.width}x{plan.height} pixels"
    for entrant in plan.entrants:
        if entrant.own is None:
            yield f"{entrant.name}: no upscaled column, since this is the size that it was trained at, or smaller"
        else:
            small = f"{entrant.own.width}x{entrant.own.height}"
            yield f"{entrant.name}: also sampled at {small}, its own size, and enlarged by {plan.upscaler}"
