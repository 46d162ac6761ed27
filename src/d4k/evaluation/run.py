"""From a folder of images to scores, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d4k.evaluation.measure import Measuring, measure
from d4k.evaluation.needs import HINTS, check_needs
from d4k.evaluation.subjects import find_subjects, picture_files
from d4k.evaluation.torchmetrics import as_metric
from d4k.plugins import create
from d4k.protocols import Metric, Score

__all__ = ["HINTS", "check_needs", "evaluate", "metrics_by_name"]


def evaluate(
    images: Path | Sequence[Path],
    metrics: Mapping[str, Metric],
    *,
    prompts: Sequence[str] | None = None,
    reference: Path | None = None,
    references: Path | None = None,
    **settings: Any,
) -> list[Score]:
    """Measure a set of images.

    Args:
        images: a folder, or files.
        metrics: name -> metric.
        prompts: one an image, in the order of the files' names; those of the folder's `index.jsonl` when left out.
        reference: folder with one reference picture for each image, in the same order.
        references: folder with the set of reference pictures; that of `reference` when left out.
        settings: fields of `Measuring`, such as `output=Path("scores")`, `device="cuda"` or `strict=True`.

    Returns:
        One score a metric, in the order given. Under a launcher with `output` set, the first process returns them.

    Raises:
        ConfigError: a metric needs something that was not given; nothing has been computed.
        DataError: no image can be measured, the numbers of images, prompts and references differ, or a reference has
            another size than its image and a metric compares them.
        OutputError: the output cannot be written.
    """
    chosen = {name: as_metric(metric) for name, metric in metrics.items()}
    folder = references or reference
    if not isinstance(images, Path) or prompts is not None:  # the index of a folder may have prompts
        check_needs(chosen, prompts=prompts is not None, reference=reference is not None, references=folder is not None)
    subjects = find_subjects(images, prompts, reference)
    others = () if folder is None else picture_files(folder)
    return list(measure(subjects, chosen, Measuring(references=others, **settings)).scores)


def metrics_by_name(names: Sequence[str]) -> dict[str, Metric]:
    """Registered metrics with their default options, by name."""
    return {name: create("metric", name) for name in names}
