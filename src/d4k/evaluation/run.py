"""From a folder of images to scores: streams every picture once through all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from tqdm.auto import tqdm

from d4k.errors import ConfigError, DataError
from d4k.images import list_pictures, open_picture, picture_size, to_tensor
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
        DataError: an image cannot be read, the numbers of images, prompts and references differ, or a reference has
            another size than its image and a metric compares them.
    """
    check_needs(metrics, prompts=prompts is not None, reference=reference is not None)
    files = list_pictures(images) if isinstance(images, Path) else list(images)
    if not files:
        raise DataError("no images to evaluate")
    if prompts is not None and len(prompts) != len(files):
        raise DataError(f"{len(files)} images, but {len(prompts)} prompts: there must be one for each image")
    references = None if reference is None else _references(reference, files)
    for metric in metrics.values():
        metric.load(torch.device("cpu"))
    compared = references is not None and any("reference" in metric.needs for metric in metrics.values())
    if references is not None and compared:
        _check_sizes(files, references)
    rows: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for index, file in enumerate(tqdm(files, desc="evaluating", unit="image")):
        inputs: dict[str, Any] = {"image": [to_tensor(open_picture(file))], "file": [file]}
        if prompts is not None:
            inputs["prompt"] = [prompts[index]]
        if references is not None and compared:
            inputs["reference"] = [_opened_reference(inputs["image"][0], file, references[index])]
        for name, metric in metrics.items():
            rows[name] += list(metric.observe(**{need: inputs[need] for need in metric.needs}))
    return [_score(name, metric, torch.stack(rows[name])) for name, metric in metrics.items()]


def metrics_by_name(names: Sequence[str]) -> dict[str, Metric]:
    """Registered metrics with their default options, by name."""
    return {name: create("metric", name) for name in names}


def _references(folder: Path, files: Sequence[Path]) -> list[Path]:
    """One reference for each image, in the order of the names."""
    found = list_pictures(folder)
    if len(found) == len(files):
        return found
    missing = [file for file in files if file.stem not in {reference.stem for reference in found}]
    surplus = [reference for reference in found if reference.stem not in {file.stem for file in files}]
    hint = ""
    if len(found) < len(files):
        lone = missing[0] if missing else files[len(found)]
        hint = f"; there is none for {lone}"
    elif surplus:
        hint = f"; {surplus[0]} belongs to none"
    raise DataError(
        f"{len(files)} images, but {len(found)} references in {folder}{hint}: there must be one for each image",
        folder,
    )


def _check_sizes(files: Sequence[Path], references: Sequence[Path]) -> None:
    """Refuse a reference of another size than its image by the headers alone, before anything is measured."""
    for file, reference in zip(files, references, strict=True):
        own, other = picture_size(file), picture_size(reference)
        if sorted(own) != sorted(other):  # one of them may be stored lying on its side
            raise _other_size(file, own, reference, other)


def _other_size(file: Path, own: tuple[int, int], reference: Path, other: tuple[int, int]) -> DataError:
    return DataError(
        f"reference {reference} is {other[0]}x{other[1]}, but image {file} is {own[0]}x{own[1]}: "
        "a reference has the size of its image; crop or resize one of them",
        reference,
    )


def _opened_reference(image: Tensor, file: Path, reference: Path) -> Tensor:
    """The pixels of a reference, (3, H, W) uint8, of the size of its image."""
    pixels = to_tensor(open_picture(reference))
    if pixels.shape != image.shape:
        raise _other_size(file, (image.shape[2], image.shape[1]), reference, (pixels.shape[2], pixels.shape[1]))
    return pixels


def check_needs(metrics: Mapping[str, Metric], *, prompts: bool, reference: bool) -> None:
    """Refuse early: raise ConfigError for the first metric that needs what is not there."""
    given = {"image", "file"} | ({"prompt"} if prompts else set()) | ({"reference"} if reference else set())
    for name, metric in metrics.items():
        for need in sorted(metric.needs - given):
            raise ConfigError(f"{name} {HINTS.get(need, f'needs {need}, which evaluation does not offer')}")


def _score(name: str, metric: Metric, rows: Tensor) -> Score:
    result = metric.score(rows)
    figures = {k: float(v) for k, v in result.items()} if isinstance(result, Mapping) else {name: float(result)}
    value, *rest = figures.items()
    settings = attrs.asdict(metric, filter=lambda a, _: a.init) if attrs.has(type(metric)) else {}  # type: ignore[arg-type]
    return Score(name, value[1], metric.unit, len(rows), metric.higher_is_better, settings, dict(rest))
