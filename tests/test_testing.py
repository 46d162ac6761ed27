"""The contract checks pass what keeps the contract and fail, with a sentence, whatever breaks a clause of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import define, frozen
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import Tensor, nn

from d4k import Conditioning, FlowStep, Sample
from d4k.datasets import FolderDataset
from d4k.testing import check_backbone, check_dataset, check_loss, check_metric
from d4k.training import MSELoss

MSE = MSELoss()


@frozen
class Loss:
    """A loss made of a function."""

    function: Callable[[Tensor, FlowStep], Tensor]

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        return self.function(velocity, step)


def test_plain_loss_passes() -> None:
    """The built-in keeps the contract."""
    check_loss(MSELoss())


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (lambda v, s: MSE(v, s).mean(), "one value a sample"),
        (lambda v, s: MSE(v, s).double(), "a loss returns float32"),
        (lambda v, s: MSE(v, s) / 0, "finite for finite input"),
        (lambda v, s: -MSE(v, s), "above zero where the prediction is wrong"),
        (lambda v, s: MSE(v.detach(), s).requires_grad_(), "has a gradient"),
        (lambda v, s: MSE(v.detach(), s) + 0 * v.flatten(1).sum(1), "gradient of a loss is not zero"),
        (lambda v, s: MSE(v, s) + 1, "zero where the prediction is right"),
        (lambda v, s: MSE(v, s) / len(v), "does not depend on its batch"),
        (lambda v, s: (v - s.velocity).square().flatten(1).mean(1), "of bfloat16 input is float32"),
    ],
)
def test_broken_losses_fail(broken: Any, sentence: str) -> None:
    """One clause each."""
    with pytest.raises(AssertionError, match=sentence):
        check_loss(Loss(broken))


def test_component_that_is_no_attrs_class_fails() -> None:
    """Its fields would not be options."""

    def loss(velocity: Tensor, step: FlowStep) -> Tensor:
        return MSE(velocity, step)

    with pytest.raises(AssertionError, match="a component is an attrs class"):
        check_loss(loss)


def picture(mode: str = "RGB") -> Callable[[], io.BytesIO]:
    stream = io.BytesIO()
    Image.new(mode, (4, 4)).save(stream, "PNG")
    return lambda: io.BytesIO(stream.getvalue())


@define
class Listed:
    """A dataset of a list."""

    samples: list[Any]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def sample(name: str, caption: Any = "c") -> Sample:
    return Sample(name, caption, picture())


class Changing(Listed):
    """Another sample on every call."""

    def __getitem__(self, index: int) -> Sample:
        self.samples[index] = sample(self.samples[index].id)
        return self.samples[index]  # type: ignore[no-any-return]


class Endless(Listed):
    """A dataset that goes round."""

    def __getitem__(self, index: int) -> Any:
        return self.samples[index % len(self.samples)]


def test_datasets_that_keep_the_contract_pass(photos: Path) -> None:
    """The built-in, and one whose pictures are streams."""
    check_dataset(FolderDataset(photos))
    check_dataset(Listed([sample("a"), sample("b")]))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Listed([]), "at least one picture"),
        (Listed([("a", "b", "c")]), "yields d4k.Sample"),
        (Listed([sample("a"), sample("a")]), "ids are unique"),
        (Listed([sample("a", caption=None)]), "captions are strings"),
        (Changing([sample("a")]), "asking twice gives the same sample"),
        (Endless([sample("a")]), "past the end raises IndexError"),
    ],
)
def test_broken_datasets_fail(broken: Any, sentence: str) -> None:
    """One clause each."""
    with pytest.raises(AssertionError, match=sentence):
        check_dataset(broken)


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


def test_backbone_that_keeps_the_contract_passes(backbone: Any) -> None:
    """And it is left as it was: same module, no gradients."""
    module = backbone.trainable
    check_backbone(backbone)
    assert backbone.trainable is module
    assert all(parameter.grad is None for parameter in module.parameters())


def past(self: Any, noisy: Tensor, sigma: Tensor, conditioning: Any, guidance: float | None = None) -> Tensor:
    """A velocity that keeps a module of its own, so that a wrapper is never called."""
    module = self.__dict__.setdefault("kept", self.trainable)
    return module(noisy, sigma, conditioning.tensors["text"])  # type: ignore[no-any-return]


def velocity(change: Callable[[Any, Tensor, float | None], Tensor]) -> Any:
    def broken(self: Any, noisy: Tensor, sigma: Tensor, conditioning: Any, guidance: float | None = None) -> Tensor:
        return change(self, self.trainable(noisy, sigma, conditioning.tensors["text"]), guidance)

    return broken


class Steps:
    """A scheduler of given timesteps, whose sigmas are not between 0 and 1."""

    def __init__(self, *timesteps: int) -> None:
        self.timesteps = torch.tensor(timesteps)
        self.sigmas = torch.tensor([*timesteps, 0])


def instructed(self: Any, prompts: list[str], negative: str | None = None) -> Conditioning:
    """Texts of which prompts begin with an instruction and the negative prompt does not."""
    tensors = {"text": torch.ones(len(prompts), 4)}
    return Conditioning(tensors if negative is None else tensors | {"negative": torch.zeros(len(prompts), 4)})


ONE_SCHEDULER = FlowMatchEulerDiscreteScheduler()
ONE_SCHEDULER.set_timesteps(5)


@pytest.mark.parametrize(
    ("method", "broken", "sentence"),
    [
        ("encode_image", lambda self, x: nn.functional.pixel_unshuffle(x, 4), r"encode_image returns \(2, 12, 8, 8\)"),
        (
            "encode_image",
            lambda self, x: (y := nn.functional.pixel_unshuffle(x, 2)) + torch.randn_like(y),
            "encode_image is deterministic",
        ),
        ("decode", lambda self, x: x, "decode returns pixels of the size"),
        ("encode_text", lambda self, p, n=None: Conditioning({"text": torch.zeros(1, 4)}), "encodes every prompt"),
        ("velocity", velocity(lambda self, v, g: v[..., :2]), "velocity has the shape of the latent"),
        ("velocity", velocity(lambda self, v, g: v - v.mean(0)), "does not depend on its batch"),
        ("velocity", velocity(lambda self, v, g: v if g is None else v[:1]), "takes a guidance scale"),
        ("velocity", velocity(lambda self, v, g: v.detach().requires_grad_()), "receives a gradient"),
        ("velocity", past, "whatever trainable was set to"),
        ("encode_text", instructed, "an empty prompt is encoded as an empty negative prompt is"),
        ("scheduler", lambda self, steps, h, w: Steps(3, 2, 1), "the steps that were asked for"),
        ("scheduler", lambda self, steps, h, w: Steps(5, 4, 3, 1, 2), "timesteps fall"),
        ("scheduler", lambda self, steps, h, w: Steps(900, 700, 500, 300, 100), "noise levels of flow matching"),
        ("scheduler", lambda self, steps, h, w: ONE_SCHEDULER, "each call makes a scheduler"),
    ],
)
def test_broken_backbones_fail(
    backbone: Any, monkeypatch: pytest.MonkeyPatch, method: str, broken: Any, sentence: str
) -> None:
    """One clause each; the module is put back even so."""
    module = backbone.trainable
    monkeypatch.setattr(type(backbone), method, broken)
    with pytest.raises(AssertionError, match=sentence):
        check_backbone(backbone)
    assert backbone.trainable is module


def test_conditioning_that_cannot_be_sliced_fails(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors must all have the batch first."""

    class Whole(Conditioning):
        def __getitem__(self, rows: Any) -> Conditioning:
            return self

    monkeypatch.setattr(type(backbone), "encode_text", lambda self, p, n=None: Whole({"text": torch.zeros(len(p), 4)}))
    with pytest.raises(AssertionError, match="a conditioning can be sliced"):
        check_backbone(backbone)
