"""The contract of a backbone passes what keeps it and fails, with a sentence, whatever breaks a clause of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from d4k import Conditioning
from d4k.testing import check_backbone


def test_backbone_that_keeps_the_contract_passes(backbone: Any) -> None:
    """And it is left as it was: same module, no gradients."""
    module = backbone.trainable
    check_backbone(backbone)
    assert backbone.trainable is module
    assert all(parameter.grad is None for parameter in module.parameters())


def test_backbone_without_guidance_passes_when_it_says_so(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distilled model ignores scale and negative prompt; a warning tells, and silence fails."""
    kind = type(backbone)
    encode, velocity = kind.encode_text, kind.velocity
    monkeypatch.setattr(kind, "velocity", lambda self, x, s, c, guidance=None, progress=None: velocity(self, x, s, c))
    monkeypatch.setattr(kind, "encode_text", lambda self, prompts, negative=None: encode(self, prompts))
    with pytest.raises(AssertionError, match="the negative prompt is ignored; use it, or warn in encode_text"):
        check_backbone(backbone)

    def honest(self: Any, prompts: list[str], negative: str | None = None) -> Conditioning:
        if negative:
            warnings.warn("this model has no negative prompt: it is ignored", stacklevel=2)
        return encode(self, prompts)  # type: ignore[no-any-return]

    monkeypatch.setattr(kind, "encode_text", honest)
    check_backbone(backbone)


def past(self: Any, noisy: Tensor, sigma: Tensor, conditioning: Any, guidance: Any = None, progress: Any = None) -> Any:
    """A velocity that keeps a module of its own, so that a wrapper is never called."""
    module = self.__dict__.setdefault("kept", self.trainable)
    wanted = module(noisy, sigma, conditioning.tensors["text"])
    if guidance is None or "negative" not in conditioning.tensors:
        return wanted
    return wanted + guidance * (wanted - module(noisy, sigma, conditioning.tensors["negative"]))


def velocity(change: Callable[[Tensor, float | None], Tensor]) -> Any:
    def broken(
        self: Any, noisy: Tensor, sigma: Tensor, text: Any, guidance: float | None = None, progress: Any = None
    ) -> Tensor:
        wanted = self.trainable(noisy, sigma, text.tensors["text"])
        if guidance is not None and "negative" in text.tensors:
            wanted = wanted + guidance * (wanted - self.trainable(noisy, sigma, text.tensors["negative"]))
        return change(wanted, guidance)

    return broken


class Steps:
    """A scheduler of given timesteps, and of noise levels as they should be."""

    def __init__(self, *timesteps: int, scale: float = 1000) -> None:
        self.timesteps = torch.tensor(timesteps)
        self.sigmas = torch.tensor([*timesteps, 0]) / scale


def steps(*timesteps: int, scale: float = 1000) -> Any:
    return lambda self, number, height, width, shift=None: Steps(*timesteps, scale=scale)


def instructed(self: Any, prompts: list[str], negative: str | None = None) -> Conditioning:
    """Texts of which prompts begin with an instruction and the negative prompt does not."""
    device = self.trainable.out.weight.device
    rows = torch.tensor([[len(prompt) / 20, 1.0, 0.0, 0.0] for prompt in prompts], device=device)
    unwanted = torch.tensor([[len(negative or "") / 20, 0.0, 0.0, 0.0]] * len(prompts), device=device)
    return Conditioning({"text": rows} if negative is None else {"text": rows, "negative": unwanted})


def text(rows: Callable[[list[str]], Tensor]) -> Any:
    """An `encode_text` whose texts are these."""
    return lambda self, prompts, negative=None: Conditioning({"text": rows(prompts)})


def scheduler_without_shift(self: Any, number: int, height: int, width: int) -> Any:
    return Steps(1000, 800, 600, 400, 200)


ONE_SCHEDULER = FlowMatchEulerDiscreteScheduler()
ONE_SCHEDULER.set_timesteps(5)
unshuffle = nn.functional.pixel_unshuffle


@pytest.mark.parametrize(
    ("method", "broken", "sentence"),
    [
        (
            "encode_image",
            lambda self, x: unshuffle(x, 4),
            r"encode_image returns \(2, 12, 6, 10\), got \(2, 48, 3, 5\)",
        ),
        ("encode_image", lambda self, x: (y := unshuffle(x, 2)) + torch.randn_like(y), "encode_image is deterministic"),
        ("encode_image", lambda self, x: unshuffle(x, 2) * float("nan"), "latents are finite"),
        (
            "encode_image",
            lambda self, x: unshuffle(x, 2) - x.mean(),
            "latent of a picture does not depend on its batch",
        ),
        ("encode_image", lambda self, x: unshuffle(x, 7), r"encode_image of pixels \(2, 3, 12, 20\) must work"),
        ("encode_image", lambda self, x: unshuffle(x * 0.5 + 0.5, 2), "pixels lie in .* 0.50 times the contrast"),
        ("encode_image", lambda self, x: unshuffle(x, 2).numpy(), "encode_image returns a tensor, got a ndarray"),
        ("decode", lambda self, x: x, "decode returns pixels of the size"),
        ("decode", lambda self, x: torch.rand(2, 3, 12, 20), "decode is deterministic"),
        ("encode_text", text(lambda p: torch.zeros(1, 4)), "encodes every prompt: 2, got 1"),
        ("encode_text", text(lambda p: torch.ones(len(p), 4)), "the text is ignored"),
        (
            "encode_text",
            text(lambda p: torch.ones(len(p), len(p[0]))),
            "velocity of .* must work; it raised RuntimeError",
        ),
        ("encode_text", lambda self, p, n=None: torch.zeros(len(p), 4), "returns d4k.Conditioning, got"),
        ("encode_text", instructed, "an empty prompt is encoded as an empty negative prompt is"),
        ("velocity", velocity(lambda v, g: v[..., :2]), "velocity has the shape of the latent"),
        ("velocity", velocity(lambda v, g: v - v.mean(0)), "does not depend on its batch"),
        ("velocity", velocity(lambda v, g: v if g is None else v[:1]), "takes a guidance scale"),
        ("velocity", velocity(lambda v, g: v.detach().requires_grad_()), "receives a gradient"),
        ("velocity", velocity(lambda v, g: v * torch.rand(())), "velocity is deterministic"),
        ("velocity", velocity(lambda v, g: v / 0), "a velocity is finite"),
        ("velocity", velocity(lambda v, g: v * 0), "the velocity is zero everywhere"),
        (
            "velocity",
            lambda self, noisy, sigma, text, guidance=None: noisy * sigma[:, None, None, None],
            "velocity of .* must work",
        ),
        ("velocity", lambda self, noisy, *rest, progress=None: noisy, "the velocity depends on sigma"),
        ("velocity", past, "whatever trainable was set to"),
        ("scheduler", steps(900, 600, 300), "the steps that were asked for, 5, got 3"),
        ("scheduler", steps(900, 700, 500, 100, 300), "timesteps fall"),
        ("scheduler", steps(900, 700, 500, 300, 100, scale=1), "noise levels of flow matching"),
        ("scheduler", steps(800, 700, 500, 300, 100), "sampling begins at noise"),
        ("scheduler", scheduler_without_shift, "scheduler.5, 12, 20, None. must work; it raised TypeError"),
        ("scheduler", lambda self, steps, h, w, shift=None: ONE_SCHEDULER, "each call makes a scheduler"),
        ("trained_options", property(lambda self: {"sed": 1}), "names options of the backbone, got 'sed'"),
        ("trained_options", property(lambda self: {"seed": object()}), "can be kept in JSON and TOML"),
        ("trained_options", property(lambda self: ["seed"]), "trained_options is a mapping, got a list"),
        ("load", lambda self, placement: None, "on the device meta must work; it raised AttributeError"),
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


def test_weights_are_left_as_they_were(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving is tried with changed weights, which are changed back even where it fails."""
    before = {name: tensor.clone() for name, tensor in backbone.trainable.state_dict().items()}
    monkeypatch.setattr(type(backbone), "save", lambda self, folder: None)
    with pytest.raises(AssertionError, match="save writes the diffusers layout, with a model_index.json"):
        check_backbone(backbone)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.trainable.state_dict().items())


def test_conditioning_that_cannot_be_sliced_fails(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors must all have the batch first."""

    class Whole(Conditioning):
        def __getitem__(self, rows: Any) -> Conditioning:
            return self

    monkeypatch.setattr(type(backbone), "encode_text", lambda self, p, n=None: Whole({"text": torch.zeros(len(p), 4)}))
    with pytest.raises(AssertionError, match="a conditioning can be sliced"):
        check_backbone(backbone)
