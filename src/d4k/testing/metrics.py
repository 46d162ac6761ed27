"""The contract of a metric: rows that belong to pictures, and scores that are made of rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import torch
from attrs import field, frozen
from torch import Tensor

from d4k.images import save_picture, to_picture
from d4k.protocols import Metric
from d4k.testing.attempt import attempt, check_options

__all__ = ["check_metric"]

NEEDS = {"image", "file", "prompt", "reference", "references"}
LARGE = 512
"""Pixels a side of the large pictures: their sums exceed what half precision and 24 bits hold."""
COUNT = 6
"""Pictures in a set."""


def check_metric(metric: Metric, size: int = 128) -> None:
    """Check a metric.

    Its needs, direction and unit are known. `observe` gives every picture the same rows alone and in a batch, whatever
    the sizes of the others, and leaves the pictures as they are. Every row counts for `score`, in any order. Whatever a
    metric needs beside the picture changes its score. `weighted_scores`, `observation`, `patch_map` and `remarks` are
    what the protocol says, where they are there. Black, white and large pictures have a finite score.

    Args:
        metric: whose `needs` are within image, file, prompt, reference and references. Its `load` is called.
        size: pixels a side of the test pictures, at least 8.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(metric)
    assert metric.needs, f"a metric needs something: {', '.join(sorted(NEEDS))}"
    assert metric.needs <= NEEDS, f"unknown needs: {sorted(set(metric.needs) - NEEDS)}"
    assert metric.higher_is_better in (True, False, None), "higher_is_better is True, False or None"
    assert isinstance(metric.unit, str), "unit is a string"
    _check_observation(metric)
    attempt(f"load of {type(metric).__name__} on the CPU", lambda: metric.load(torch.device("cpu")))
    with ExitStack() as stack:
        trial = Trial(metric, size, Path(stack.enter_context(TemporaryDirectory())))
        _check_rows(trial)
        _check_score(trial)
        _check_inputs(trial)
        _check_extremes(trial)
        _check_patches(trial)


@frozen(eq=False)
class Trial:
    """A metric, and the pictures it is tried on."""

    metric: Metric
    size: int
    folder: Path
    pictures: tuple[Tensor, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Noise of several strengths on several slopes: no two pictures alike, none square."""
        height, width = self.size, self.size + self.size // 4
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(COUNT, 3, height, width, generator=generator)
        slope = torch.arange(width).expand(3, height, width) / width
        shares = torch.linspace(0, 1, COUNT)
        made = [(255 * (s * n + (1 - s) * slope)).to(torch.uint8) for s, n in zip(shares, noise, strict=True)]
        object.__setattr__(self, "pictures", tuple(made))

    @property
    def name(self) -> str:
        """What messages call the metric."""
        return type(self.metric).__name__

    @property
    def of_sets(self) -> bool:
        """Whether whole sets are compared."""
        return "references" in self.metric.needs

    def rows(self, *pictures: Tensor, what: str = "pictures", **changes: Sequence[Any]) -> list[Tensor]:
        """The rows of each picture, each (K, D); `prompt` and `reference` may be given in place of the usual ones."""
        usual = {
            "image": list(pictures),
            "prompt": ["a test"] * len(pictures),
            "reference": [255 - picture for picture in pictures],
        }
        inputs = {need: (usual | changes)[need] for need in self.metric.needs - {"file", "references"}}
        if "file" in self.metric.needs:
            inputs["file"] = [self._file(picture, f"{place}.png") for place, picture in enumerate(pictures)]
        kept = [picture.clone() for picture in pictures]
        shown = f"{what} of {', '.join(str(tuple(picture.shape)) for picture in pictures)} uint8"
        observed = attempt(f"observe of {self.name} with {shown}", partial(self.metric.observe, **inputs))
        assert all(map(torch.equal, pictures, kept)), "a metric leaves the images that it is shown as they are"
        return self._checked(observed, len(pictures))

    def score(self, rows: Sequence[Tensor], references: Sequence[Tensor] = (), what: str = "pictures") -> float:
        """The score of some pictures' rows; sets are compared with `references`, or else with all usual pictures."""
        given, against = torch.cat(list(rows)), None
        if self.of_sets:
            against = torch.cat(list(references or self.rows(*self.pictures)))
        kept = given.clone()
        value = self._value(attempt(f"score of {self.name} for {what}", lambda: self.metric.score(given, against)))
        assert torch.equal(given.nan_to_num(), kept.nan_to_num()), "score leaves the rows that it is given as they are"
        assert math.isfinite(value), f"a score is finite: {self.name} gave {value} for {what}"
        return value

    def _checked(self, observed: Any, count: int) -> list[Tensor]:
        assert isinstance(observed, Tensor | Sequence), "observe gives a tensor (B, D), or a tensor (K, D) a picture"
        assert len(observed) == count, f"observe gives rows for each picture: {count} were shown, got {len(observed)}"
        rows = [row[None] if isinstance(observed, Tensor) else row for row in observed]
        for row in rows:
            assert isinstance(row, Tensor), f"rows are tensors, got {type(row).__name__}"
            assert row.ndim == 2, f"the rows of a picture are (K, D), got {tuple(row.shape)}"
            assert row.is_floating_point(), f"rows are floating point, got {row.dtype}"
            assert row.device.type == "cpu", f"rows lie on the CPU, got {row.device}"
        assert len({row.shape[1] for row in rows}) == 1, "every row has as many numbers"
        return rows

    def _file(self, picture: Tensor, name: str) -> Path:
        path = self.folder / name
        save_picture(to_picture(picture), path)
        return path

    @staticmethod
    def _value(result: Any) -> float:
        if isinstance(result, Mapping):
            assert result, "score returns at least one number"
            result = next(iter(result.values()))
        return attempt(f"a score as a number, got {type(result).__name__}: it", lambda: float(result))


def _check_observation(metric: Metric) -> None:
    """What decides a row is written down: it is plain, and of equal metrics it is equal."""
    if not hasattr(metric, "observation"):
        return
    found = attempt(f"observation of {type(metric).__name__}", lambda: metric.observation)
    assert isinstance(found, Mapping), f"observation is a mapping, got {type(found).__name__}"
    attempt("observation as JSON", lambda: json.dumps(dict(found)))
    again = attrs.evolve(metric)  # type: ignore[misc]
    assert dict(again.observation) == dict(found), "metrics of the same options have the same observation"


def _check_rows(trial: Trial) -> None:
    first, *_, last = trial.pictures
    small = last[:, :, : trial.size]
    alone = [trial.rows(picture)[0] for picture in (first, small, last)]
    again = trial.rows(first)[0]
    assert torch.equal(alone[0], again), "the same picture has the same rows again"
    together = trial.rows(first, small, last)
    for one, other in zip(alone, together, strict=True):
        assert one.shape == other.shape, "a picture has as many rows in a batch as alone"
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5), "a picture has the same rows in a batch as alone"


def _check_score(trial: Trial) -> None:
    rows = trial.rows(*trial.pictures)
    value = trial.score(rows)
    assert value == trial.score(rows), "score gives the same figure when it is called twice"
    assert _close(value, trial.score(rows[::-1])), "the order of the pictures does not matter"
    if not trial.of_sets:
        one, two = trial.score(rows[:1]), trial.score(rows[-1:])
        assert one != two, "pictures as different as noise and a slope have different scores"
        assert trial.score([rows[0], rows[-1]]) not in (one, two), "every image counts"
    # a share of a set of references may be the same without one picture
    assert trial.of_sets or trial.score(rows[:-1]) != value, "every image counts"
    if hasattr(trial.metric, "weighted_scores"):
        _check_weights(trial, rows)
    if hasattr(trial.metric, "remarks"):
        said = attempt(f"remarks of {trial.name}", lambda: trial.metric.remarks(2, 2))  # type: ignore[attr-defined]
        assert not isinstance(said, str), "remarks are a sequence of sentences, not one string"
        assert all(isinstance(sentence, str) for sentence in said), "remarks are sentences"


def _check_weights(trial: Trial, rows: Sequence[Tensor]) -> None:
    """A picture that counts twice counts as it does when its rows are there twice."""
    metric: Any = trial.metric
    counts = torch.tensor([[1.0] * len(rows), [2.0, 0.0, *[1.0] * (len(rows) - 2)]], dtype=torch.float64)
    each = torch.tensor([len(row) for row in rows])
    against = torch.cat(trial.rows(*trial.pictures)) if trial.of_sets else None
    weights = counts.repeat_interleave(each, 1)
    given = torch.cat(list(rows))
    found = attempt(
        f"weighted_scores of {trial.name}", lambda: metric.weighted_scores(given, weights, references=against)
    )
    assert tuple(found.shape) == (2,), f"weighted_scores gives a score a resample: (2,), got {tuple(found.shape)}"
    assert _close(float(found[0]), trial.score(rows)), "weights of one give the score itself"
    assert bool(found.isfinite().all()), "weighted_scores are finite"
    if trial.of_sets:
        return  # which may leave out what a picture has to do with its own copy, such as being its nearest neighbour
    repeated = trial.score([rows[0], rows[0], *rows[2:]])
    assert _close(float(found[1]), repeated), (
        f"a picture of weight 2 counts as one that is there twice: got {float(found[1]):.6g} and {repeated:.6g}"
    )


def _check_inputs(trial: Trial) -> None:
    rough, needs = trial.pictures[-1], trial.metric.needs
    if "prompt" in needs:
        texts = ("a test", "two red bicycles under an old tree")
        first, other = (trial.score(trial.rows(rough, prompt=[text])) for text in texts)
        assert first != other, "a metric that needs prompts has another score for another prompt"
    better = trial.metric.higher_is_better
    near = far = None
    if "reference" in needs:
        near = trial.score(trial.rows(rough, reference=[rough ^ 1]))
        far = trial.score(trial.rows(rough, reference=[255 - rough]))
    elif trial.of_sets:
        rows, negatives = (trial.rows(*made) for made in (trial.pictures, [255 - each for each in trial.pictures]))
        near, far = trial.score(rows, rows), trial.score(rows, negatives)
    if near is None or far is None:
        return
    assert near != far, "a metric that needs references has another score for another reference"
    assert better is None or (near > far) == better, (
        f"a reference that is nearly the image scores better than its negative: got {near:.4g} and {far:.4g}, "
        f"and higher_is_better is {better}"
    )


def _check_extremes(trial: Trial) -> None:
    blank = torch.zeros_like(trial.pictures[0])
    for level, name in ((0, "black pictures"), (255, "white pictures")):
        each = [blank + level] * COUNT
        trial.score(trial.rows(*each, what=name, reference=[blank + abs(level - 1)] * COUNT), what=name)
    side = max(LARGE, trial.size)
    large = torch.full((3, side, side), 255, dtype=torch.uint8)
    large[..., ::2] = 254
    rows = trial.rows(large, what="large pictures", reference=[large - 1])
    trial.score(rows * COUNT if trial.of_sets else rows, what="large pictures")


def _check_patches(trial: Trial) -> None:
    metric: Any = trial.metric
    if not hasattr(metric, "patch_map"):
        return
    assert isinstance(getattr(metric, "patch", None), int), "a metric with patch_map has patch, the pixels a side"
    picture = trial.pictures[-1].repeat(1, -(-metric.patch // trial.size), -(-metric.patch // trial.size))
    found = attempt(f"patch_map of {trial.name}", lambda: metric.patch_map(picture))
    wanted = tuple(-(-side // metric.patch) for side in picture.shape[1:])
    assert tuple(found.shape) == wanted, (
        f"patch_map covers a picture with patches: {wanted} of {metric.patch} pixels, got {tuple(found.shape)}"
    )
    assert bool(found.isfinite().all()), "the score of every patch is finite"


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6)
