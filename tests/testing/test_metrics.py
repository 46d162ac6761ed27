"""The contract of a metric passes what keeps it and fails, with a sentence, whatever breaks a clause of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from attrs import frozen
from torch import Tensor

from d4k.errors import CheckpointError
from d4k.images import open_picture, to_tensor
from d4k.testing import check_metric


def test_metric_that_keeps_the_contract_passes(metric: Any) -> None:
    """Also one that returns a plain number."""
    check_metric(metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(metric), "score", lambda self, rows, references=None: float(rows.mean()))
        check_metric(metric, size=16)


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("needs", frozenset({"depth"}), r"unknown needs: \['depth'\]"),
        ("needs", frozenset(), "a metric needs something: file, image"),
        ("higher_is_better", "yes", "higher_is_better is True, False or None"),
        ("unit", None, "unit is a string"),
        ("score", lambda self, rows, references=None: float(rows[-1]), "the order of the pictures does not matter"),
        ("score", lambda self, rows, references=None: float(rows.sum()) + len(str(rows)), None),
        ("score", lambda self, rows, references=None: 1.0, "as noise and a slope have different scores"),
        ("score", lambda self, rows, references=None: "much", "a score as a number, got str"),
        ("score", lambda self, rows, references=None: {}, "score returns at least one number"),
        ("score", lambda self, rows, references=None: float(rows.sub_(1).mean()), "score leaves the rows"),
    ],
)
def test_broken_metrics_fail(
    metric: Any, monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any, sentence: str | None
) -> None:
    """One clause each."""
    monkeypatch.setattr(type(metric), attribute, value)
    if sentence is None:
        check_metric(metric)
        return
    with pytest.raises(AssertionError, match=sentence):
        check_metric(metric)


@frozen
class Made:
    """A metric that is what its subclass says of one picture, averaged."""

    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    higher_is_better: ClassVar[bool | None] = True
    unit: ClassVar[str] = ""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(image.double().std())

    def load(self, device: torch.device) -> None:
        """Nothing."""

    def observe(self, **inputs: Sequence[Any]) -> Any:
        count = len(next(iter(inputs.values())))
        each = [self.measured(**{name: value[row] for name, value in inputs.items()}) for row in range(count)]
        return torch.tensor(each, dtype=torch.float64)[:, None]

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean())


class Distance(Made):
    """Mean square against a reference."""

    needs = frozenset({"image", "reference"})
    higher_is_better = False

    def measured(self, image: Tensor, **others: Any) -> float:
        return float((image.double() - others["reference"].double()).square().mean())


class Words(Made):
    """Something of a prompt and of the picture's file."""

    needs = frozenset({"file", "prompt"})

    def measured(self, **others: Any) -> float:  # type: ignore[override]
        return float(len(others["prompt"]) + to_tensor(open_picture(others["file"])).float().std())


class Sets(Made):
    """How far the mean of a set is from that of another."""

    needs = frozenset({"image", "references"})
    higher_is_better = False

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(image.double().mean() + image.double().std())

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        assert references is not None
        return float((rows.mean() - references.mean()).abs())


class Patches(Made):
    """A row a patch of 8 pixels, of which a picture has more or fewer; with all that a metric may have."""

    patch = 8

    @property
    def observation(self) -> Mapping[str, Any]:
        return {"rows": "patches", "side": 8}

    def observe(self, **inputs: Sequence[Any]) -> Any:
        return [self.patch_map(image).reshape(-1, 1) for image in inputs["image"]]

    def patch_map(self, image: Tensor) -> Tensor:
        height, width = (side // 8 * 8 for side in image.shape[1:])
        grey = image.double().mean(0)[:height, :width]
        return grey.reshape(height // 8, 8, width // 8, 8).permute(0, 2, 1, 3).flatten(2).std(2)

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:
        return weights @ rows[:, 0] / weights.sum(1)

    def remarks(self, count: int, references: int) -> tuple[str, ...]:
        return (f"It rests on {count} pictures.",)


@pytest.mark.parametrize("metric", [Made(), Distance(), Words(), Sets(), Patches()])
def test_metrics_of_every_need_pass(metric: Any) -> None:
    """Image, file, prompt, reference and references, and one with a row a patch."""
    check_metric(metric, size=32)


class Blind(Distance):
    """The reference is asked for and not looked at."""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(image.float().mean())


class Backwards(Distance):
    """A distance that says it were a likeness."""

    higher_is_better = True


class SetsBackwards(Sets):
    """The same, of sets."""

    higher_is_better = True


class Deaf(Words):
    """The prompt is not looked at."""

    def measured(self, **others: Any) -> float:  # type: ignore[override]
        return float(to_tensor(open_picture(others["file"])).float().std())


class Contrast(Made):
    """Not a number where there is no contrast."""

    def measured(self, image: Tensor, **others: Any) -> float:
        grey = image.float() - image.float().mean()
        return float((grey / grey.std()).abs().max() + image.float().mean())


class Batches(Made):
    """A picture is measured against the others of its batch."""

    def observe(self, **inputs: Sequence[Any]) -> Any:
        rows = super().observe(**inputs)
        return rows - rows.mean() + rows[0] * len(rows)


class First(Made):
    """The rest of a batch is left out."""

    def observe(self, **inputs: Sequence[Any]) -> Any:
        return super().observe(image=inputs["image"][:1])


class Whole(Made):
    """Whole numbers as rows."""

    def observe(self, **inputs: Sequence[Any]) -> Any:
        return super().observe(**inputs).long()


class Flat(Made):
    """One long tensor in place of rows."""

    def observe(self, **inputs: Sequence[Any]) -> Any:
        return list(super().observe(**inputs))


class Random(Made):
    """Another row every time."""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(torch.rand(()))


class Writing(Made):
    """It works in place."""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(image.add_(1).float().mean())


class Square(Made):
    """Only square pictures."""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float((image.float() @ image.float()).mean())


class Unplain(Made):
    """What decides its rows is no plain value."""

    @property
    def observation(self) -> Mapping[str, Any]:
        return {"device": torch.device("cpu")}


class Heavier(Patches):
    """Weights count twice."""

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:
        return weights.square() @ rows[:, 0] / weights.square().sum(1)


class Sideways(Patches):
    """The map has its sides exchanged."""

    def patch_map(self, image: Tensor) -> Tensor:
        return super().patch_map(image).T


class Talking(Patches):
    """One string of remarks."""

    def remarks(self, count: int, references: int) -> Any:
        return "It rests on pictures."


class Absent(Made):
    """Its weights cannot be had."""

    def load(self, device: torch.device) -> None:
        raise CheckpointError("put net.safetensors somewhere")


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        (Blind(), "a metric that needs references has another score for another reference"),
        (Backwards(), "a reference that is nearly the image scores better than its negative"),
        (SetsBackwards(), "a reference that is nearly the image scores better than its negative"),
        (Deaf(), "a metric that needs prompts has another score for another prompt"),
        (Contrast(), "a score is finite: Contrast gave nan for black pictures"),
        (Batches(), "a picture has the same rows in a batch as alone"),
        (First(), "observe gives rows for each picture: 3 were shown, got 1"),
        (Whole(), "rows are floating point, got torch.int64"),
        (Flat(), r"the rows of a picture are \(K, D\), got \(1,\)"),
        (Random(), "the same picture has the same rows again"),
        (Writing(), "leaves the images that it is shown as they are"),
        (Square(), "observe of Square with pictures of .* must work; it raised RuntimeError"),
        (Unplain(), "observation as JSON must work"),
        (Heavier(), "a picture of weight 2 counts as one that is there twice"),
        (Sideways(), r"patch_map covers a picture with patches: \(4, 5\) of 8 pixels, got \(5, 4\)"),
        (Talking(), "remarks are a sequence of sentences, not one string"),
        (Absent(), "load of Absent on the CPU must work; it raised CheckpointError: put net.safetensors somewhere"),
    ],
)
def test_metrics_with_a_fault_fail(metric: Any, sentence: str) -> None:
    """One clause each."""
    with pytest.raises(AssertionError, match=sentence):
        check_metric(metric, size=32)
