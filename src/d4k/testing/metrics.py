"""The contract of a metric of single images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from d4k.images import save_picture, to_picture
from d4k.protocols import Metric
from d4k.testing.attempt import attempt, check_options

__all__ = ["check_metric"]

NEEDS = {"image", "file", "prompt", "reference"}
LARGE = 512
"""Pixels a side of the large pictures: their sums exceed what half precision and 24 bits hold."""


def check_metric(metric: Metric, size: int = 128) -> None:
    """Check a metric of single images.

    Its needs, direction and unit are known. Every image counts, alike in a batch and alone, and whatever it needs
    beside the image changes the score. `reset` forgets. Black, white and large pictures have a finite score. The images
    that it is shown stay as they are.

    Args:
        metric: whose `needs` are within image, file, prompt and reference.
        size: pixels a side of the test images, at least 8.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(metric)
    assert metric.needs, "a metric needs something: image, file, prompt or reference"
    assert metric.needs <= NEEDS, f"unknown needs: {sorted(set(metric.needs) - NEEDS)}"
    assert metric.higher_is_better in (True, False, None), "higher_is_better is True, False or None"
    assert isinstance(metric.unit, str), "unit is a string"
    with ExitStack() as stack:
        trial = Trial(metric, size, Path(stack.enter_context(TemporaryDirectory())))
        _check_counting(trial)
        _check_inputs(trial)
        _check_extremes(trial)


@frozen(eq=False)
class Trial:
    """A metric, and the pictures it is tried on."""

    metric: Metric
    size: int
    folder: Path
    rough: Tensor = field(init=False)
    smooth: Tensor = field(init=False)

    def __attrs_post_init__(self) -> None:
        height, width = self.size, self.size + self.size // 4  # not square
        generator = torch.Generator().manual_seed(0)
        rough = torch.randint(0, 256, (1, 3, height, width), generator=generator, dtype=torch.uint8)
        smooth = torch.arange(width).expand(1, 3, height, width).mul(255 / width).to(torch.uint8)
        object.__setattr__(self, "rough", rough)
        object.__setattr__(self, "smooth", smooth)

    def score(self, *images: Tensor, what: str = "pictures", **changes: Any) -> float:
        """The score of batches of images; `prompt` and `reference` may be given in place of the usual ones."""
        name = type(self.metric).__name__
        attempt(f"reset of {name}", self.metric.reset)
        for number, image in enumerate(images):
            inputs = self._inputs(image, number) | changes
            kept, given = image.clone(), {need: inputs[need] for need in self.metric.needs}
            shown = f"{what} of {tuple(image.shape)} uint8"
            attempt(f"update of {name} with {shown}", partial(self.metric.update, **given))
            assert torch.equal(image, kept), "a metric leaves the images that it is shown as they are"
        value = self._value(attempt(f"compute of {name} after {what}", self.metric.compute))
        again = self._value(attempt(f"a second compute of {name}", self.metric.compute))
        assert value == again or math.isnan(value), "compute gives the same score when it is called twice"
        assert math.isfinite(value), f"a score is finite: {name} gave {value} for {what}"
        return value

    def _inputs(self, image: Tensor, number: int) -> dict[str, Any]:
        inputs: dict[str, Any] = {"image": image, "prompt": ["a test"] * len(image), "reference": 255 - image}
        if "file" in self.metric.needs:
            inputs["file"] = [self._file(picture, f"{number}-{place}.png") for place, picture in enumerate(image)]
        return inputs

    def _file(self, picture: Tensor, name: str) -> Path:
        path = self.folder / name
        save_picture(to_picture(picture), path)
        return path

    @staticmethod
    def _value(result: Any) -> float:
        if isinstance(result, Mapping):
            assert result, "compute returns at least one number"
            result = next(iter(result.values()))
        return attempt(f"a score as a number, got {type(result).__name__}: it", lambda: float(result))


def _check_counting(trial: Trial) -> None:
    rough, smooth, score = trial.rough, trial.smooth, trial.score
    first, other = score(rough), score(smooth)
    assert score(rough) == first, "reset forgets: the same image scores the same again"
    both = score(rough, smooth)
    assert both not in (first, other), "every image counts"
    assert _close(score(torch.cat([rough, smooth])), both), "a batch of two images scores as they do one by one"
    batches = score(torch.cat([rough, rough]), smooth)
    assert _close(batches, score(rough, rough, smooth)), "every image counts alike, also in batches of unequal size"


def _check_inputs(trial: Trial) -> None:
    rough, score, needs = trial.rough, trial.score, trial.metric.needs
    if "prompt" in needs:
        texts = ("a test", "two red bicycles under an old tree")
        first, other = (score(rough, prompt=[text]) for text in texts)
        assert first != other, "a metric that needs prompts has another score for another prompt"
    if "reference" in needs:
        near, far = score(rough, reference=rough ^ 1), score(rough, reference=255 - rough)
        assert near != far, "a metric that needs references has another score for another reference"
        better = trial.metric.higher_is_better
        assert better is None or (near > far) == better, (
            f"a reference that is nearly the image scores better than its negative: got {near:.4g} and {far:.4g}, "
            f"and higher_is_better is {better}"
        )


def _check_extremes(trial: Trial) -> None:
    blank = torch.zeros_like(trial.rough)
    for level, name in ((0, "black pictures"), (255, "white pictures")):
        trial.score(blank + level, what=name, reference=blank + abs(level - 1))
    side = max(LARGE, trial.size)
    large = torch.full((1, 3, side, side), 255, dtype=torch.uint8)
    large[..., ::2] = 254
    trial.score(large, what="large pictures", reference=large - 1)


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)
