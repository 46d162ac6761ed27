"""The contract of a metric passes what keeps it and fails, with a sentence, whatever breaks a clause of it."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from attrs import define, field
from torch import Tensor

from d4k.images import open_picture, to_tensor
from d4k.testing import check_metric


def test_metric_that_keeps_the_contract_passes(metric: Any) -> None:
    """Also one that returns a plain number."""
    check_metric(metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(metric), "compute", lambda self: sum(self.means) / len(self.means))
        check_metric(metric, size=16)


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("needs", frozenset({"depth"}), r"unknown needs: \['depth'\]"),
        ("higher_is_better", "yes", "higher_is_better is True, False or None"),
        ("unit", None, "unit is a string"),
        ("reset", lambda self: None, "reset forgets"),
        ("compute", lambda self: self.means[-1], "every image counts"),
        ("compute", lambda self: self.means[0], "every image counts"),
    ],
)
def test_broken_metrics_fail(
    metric: Any, monkeypatch: pytest.MonkeyPatch, attribute: str, value: Any, sentence: str
) -> None:
    """One clause each."""
    monkeypatch.setattr(type(metric), attribute, value)
    with pytest.raises(AssertionError, match=sentence):
        check_metric(metric)


@define(slots=False)
class Made:
    """A metric that is what its subclass says of one picture, averaged."""

    needs = frozenset({"image"})
    higher_is_better: ClassVar[bool] = True
    unit = ""
    values: list[float] = field(init=False, factory=list)

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(image.float().mean())

    def update(self, **inputs: Any) -> None:
        count = len(next(iter(inputs.values())))
        for row in range(count):
            self.values.append(self.measured(**{name: value[row] for name, value in inputs.items()}))

    def compute(self) -> float:
        return sum(self.values) / len(self.values)

    def reset(self) -> None:
        self.values.clear()


class Distance(Made):
    """Mean square against a reference."""

    needs = frozenset({"image", "reference"})
    higher_is_better = False

    def measured(self, image: Tensor, **others: Any) -> float:
        return float((image.float() - others["reference"].float()).square().mean())


class Words(Made):
    """Something of a prompt and of the picture's file."""

    needs = frozenset({"file", "prompt"})

    def measured(self, **others: Any) -> float:  # type: ignore[override]
        return float(len(others["prompt"]) + to_tensor(open_picture(others["file"])).float().std())


@pytest.mark.parametrize("metric", [Made(), Distance(), Words()])
def test_metrics_of_every_need_pass(metric: Any) -> None:
    """Image, file, prompt and reference."""
    check_metric(metric, size=32)


class Blind(Distance):
    """The reference is asked for and not looked at."""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(image.float().mean())


class Backwards(Distance):
    """A distance that says it were a likeness."""

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
    """A mean of the means of batches."""

    def update(self, **inputs: Any) -> None:
        self.values.append(float(inputs["image"].float().mean()))


class First(Made):
    """The rest of a batch is left out."""

    def update(self, **inputs: Any) -> None:
        super().update(image=inputs["image"][:1])


class Emptying(Made):
    """It can be computed once."""

    def compute(self) -> float:
        value = super().compute()
        self.values = [0.0]
        return value


class Writing(Made):
    """It works in place."""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float(image.add_(1).float().mean())


class Square(Made):
    """Only square pictures."""

    def measured(self, image: Tensor, **others: Any) -> float:
        return float((image.float() @ image.float()).mean())


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        (Blind(), "a metric that needs references has another score for another reference"),
        (Backwards(), "a reference that is nearly the image scores better than its negative"),
        (Deaf(), "a metric that needs prompts has another score for another prompt"),
        (Contrast(), "a score is finite: Contrast gave nan for black pictures"),
        (Batches(), "every image counts alike, also in batches of unequal size"),
        (First(), "a batch of two images scores as they do one by one"),
        (Emptying(), "compute gives the same score when it is called twice"),
        (Writing(), "leaves the images that it is shown as they are"),
        (Square(), "update of Square with pictures of .* must work; it raised RuntimeError"),
    ],
)
def test_metrics_with_a_fault_fail(metric: Any, sentence: str) -> None:
    """One clause each."""
    with pytest.raises(AssertionError, match=sentence):
        check_metric(metric, size=32)
