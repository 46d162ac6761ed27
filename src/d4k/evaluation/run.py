"""From a folder of images to scores: streams every picture once through all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from tqdm.auto import tqdm

from d4k.errors import ConfigError, DataError
from d4k.images import list_pictures, open_picture, to_tensor
from d4k.plugins import create
from d4k.protocols import Metric, Score

__all__ = ["HINTS", "check_needs", "evaluate", "metrics_by_name"]

HINTS = {
    "prompt": "needs prompts: pass --prompts FILE, one line an image (prompts=[...] in Python)",
    "reference": "needs reference images: pass --reference FOLDER (reference=... in Python)",
}


def evaluate(
    images: Path | Sequence[Path],
    metrics: Mapping[str, Metric],
    *,
    prompts: Sequence[str] | None = None,
    reference: Path | None = None,
) -> list[Score]:
    """Measure a set of images.

    Args:
        images: a folder, or files.
        metrics: name -> metric.
        prompts: one an image, in the order of the files' names.
        reference: folder with one reference picture for each image, in the same order.

    Returns:
        One score a metric, in the order given.

    Raises:
        ConfigError: a metric needs something that was not given; nothing has been computed.
        DataError: an image cannot be read, or the numbers of images, prompts and references differ.
    """
    check_needs(metrics, prompts=prompts is not None, reference=reference is not None)
    files = list_pictures(images) if isinstance(images, Path) else list(images)
    references = None if reference is None else list_pictures(reference)
    for what, others in (("prompts", prompts), ("references", references)):
        if others is not None and len(others) != len(files):
            raise DataError(f"{len(files)} images, but {len(others)} {what}: there must be one for each image")
    if not files:
        raise DataError("no images to evaluate")
    for metric in metrics.values():
        metric.reset()
    for index, file in enumerate(tqdm(files, desc="evaluating", unit="image")):
        inputs: dict[str, Any] = {"image": to_tensor(open_picture(file))[None], "file": [file]}
        if prompts is not None:
            inputs["prompt"] = [prompts[index]]
        if references is not None and any("reference" in metric.needs for metric in metrics.values()):
            inputs["reference"] = to_tensor(open_picture(references[index]))[None]
        for metric in metrics.values():
            metric.update(**{need: inputs[need] for need in metric.needs})
    return [_score(name, metric, len(files)) for name, metric in metrics.items()]


def metrics_by_name(names: Sequence[str]) -> dict[str, Metric]:
    """Registered metrics with their default options, by name."""
    return {name: create("metric", name) for name in names}


def check_needs(metrics: Mapping[str, Metric], *, prompts: bool, reference: bool) -> None:
    """Refuse early: raise ConfigError for the first metric that needs what is not there."""
    given = {"image", "file"} | ({"prompt"} if prompts else set()) | ({"reference"} if reference else set())
    for name, metric in metrics.items():
        for need in sorted(metric.needs - given):
            raise ConfigError(f"{name} {HINTS.get(need, f'needs {need}, which evaluation does not offer')}")


def _score(name: str, metric: Metric, count: int) -> Score:
    result = metric.compute()
    figures = {k: float(v) for k, v in result.items()} if isinstance(result, Mapping) else {name: float(result)}
    value, *rest = figures.items()
    settings = attrs.asdict(metric, filter=lambda a, _: a.init) if attrs.has(type(metric)) else {}  # type: ignore[arg-type]
    return Score(name, value[1], metric.unit, count, metric.higher_is_better, settings, dict(rest))
