"""From a folder of images to scores, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from d4k.errors import ConfigError, did_you_mean
from d4k.evaluation.measure import Measuring, measure
from d4k.evaluation.needs import HINTS, check_needs
from d4k.evaluation.subjects import find_subjects, picture_files
from d4k.evaluation.torchmetrics import as_metric
from d4k.plugins import create
from d4k.protocols import Metric, Score

__all__ = ["HINTS", "check_needs", "evaluate", "metrics_by_name"]


def evaluate(
    images: str | Path | Sequence[str | Path],
    metrics: Mapping[str, Metric],
    *,
    prompts: Sequence[str] | None = None,
    reference: str | Path | None = None,
    references: str | Path | None = None,
    **settings: Any,
) -> list[Score]:
    """Measure a set of images.

    Args:
        images: a folder, or files.
        metrics: name -> metric.
        prompts: one an image, in the order of the files' names; those of the folder's `index.jsonl` when left out.
        reference: folder with one reference picture for each image, in the same order.
        references: folder with the set of reference pictures; that of `reference` when left out.
        settings: other fields of `Measuring`, such as `output="scores"`, `device="cuda"` or `strict=True`.

    Returns:
        One score a metric, in the order given. Of several processes of a launch with one `output`, the first returns
        them, and the others return none.

    Raises:
        ConfigError: a metric needs something that was not given, or there is no such setting; nothing has been
            computed.
        DataError: no image can be measured, the numbers of images, prompts and references differ, or a reference has
            another size than its image and a metric compares them.
        OutputError: the output cannot be written.
    """
    chosen = {name: as_metric(metric) for name, metric in metrics.items()}
    files = Path(images) if isinstance(images, str | Path) else [Path(file) for file in images]
    beside, folder = _path(reference), _path(references or reference)
    may = prompts is not None or isinstance(files, Path)  # the index of a folder may have prompts
    check_needs(chosen, prompts=may, reference=beside is not None, references=folder is not None)
    others = () if folder is None else picture_files(folder)
    found = find_subjects(files, prompts, beside)
    return list(measure(found, chosen, _measuring({"references": others, **settings})).scores)


def _measuring(settings: Mapping[str, Any]) -> Measuring:
    known = [option.name for option in attrs.fields(Measuring)]
    for name in settings:
        if name not in known:
            raise ConfigError(f"unknown setting '{name}'{did_you_mean(name, known)} Known: {', '.join(known)}.")
    paths = {name: _path(settings[name]) for name in ("output", "store") if name in settings}
    return Measuring(**{**settings, **paths})


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def metrics_by_name(names: str | Sequence[str]) -> dict[str, Metric]:
    """Registered metrics with their default options, by name; one name stands for itself, not for its letters."""
    return {name: create("metric", name) for name in ([names] if isinstance(names, str) else names)}
