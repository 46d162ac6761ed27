"""The contract of a backbone on the device "meta", where memory is planned."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from d4k.models import ones_of
from d4k.planning import Trace, trace
from d4k.protocols import Backbone, Conditioning, Placement
from d4k.testing.attempt import attempt, check_options, shape_of

__all__ = ["check_meta", "check_shapes"]

BEYOND = 16
"""How many times its default size a backbone without `max_size` is tried at, on the longer side."""

ASPECT = 4
"""The longer side over the shorter one."""


def check_shapes(backbone: Backbone) -> None:
    """Check a backbone that was loaded on the device "meta", as planning does.

    No weight is read; text, latents and velocity have shapes; a sampling step and a training step, with and without
    gradient checkpointing, can be traced; the largest size that `latent.max_size` allows works, and where it is None,
    sixteen times the default size does.

    Args:
        backbone: loaded with `Placement(torch.device("meta"), dtype)`.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(backbone)
    weights = [tensor for part in backbone.components.values() for tensor in part.parameters()]
    assert all(tensor.is_meta for tensor in weights), "on the device meta no weight is read"
    for prompts in (["one"], ["one", "two"]):
        _check_step(backbone, prompts)
    _check_sizes(backbone)
    _check_planning(backbone)


def check_meta(backbone: Backbone) -> None:
    """`check_shapes` on a second instance of the same options, made in bfloat16."""
    made: Any = backbone
    empty: Backbone = attempt("a second instance of the same options", lambda: evolve(made))
    placement = Placement(torch.device("meta"), torch.bfloat16)
    attempt('load on the device "meta", which makes shapes and reads no weights,', lambda: empty.load(placement))
    for name in ("latent", "defaults", "components", "trainable"):
        attempt(f"{name} on the device meta", partial(getattr, empty, name))
    narrow = sum(p.numel() for p in empty.trainable.parameters() if p.dtype == torch.bfloat16)
    every = sum(p.numel() for p in empty.trainable.parameters())
    assert narrow > 0.5 * every, "load makes the denoiser in the dtype of its placement, bfloat16"
    assert every == sum(p.numel() for p in backbone.trainable.parameters()), (
        "the denoiser has as many parameters on the device meta as when it is loaded"
    )
    check_shapes(empty)


def _check_step(backbone: Backbone, prompts: list[str]) -> None:
    text = _text(backbone, prompts)
    assert len(text) == len(prompts), "encode_text gives the shapes of every prompt on the device meta"
    assert all(t.is_meta for t in text.tensors.values()), "encode_text gives tensors on the device meta"
    unit = 4 * backbone.latent.granularity
    noisy = _noise(backbone, len(prompts), unit, unit)
    made: list[Tensor] = []

    def run() -> Tensor:
        made.append(_quiet(backbone, noisy, text))
        return made[0]

    _traced(f"velocity of {shape_of(noisy)} on the device meta", run, text)
    assert made[0].shape == noisy.shape, "velocity has the shape of the latent on the device meta"
    assert made[0].is_meta, "velocity stays on the device meta"


def _check_sizes(backbone: Backbone) -> None:
    spec = backbone.latent
    unit = spec.granularity
    longest = (spec.max_size or BEYOND * backbone.defaults.size) // unit * unit
    shorter = max(unit, longest // ASPECT // unit * unit)
    text = _text(backbone, ["one"])
    for height, width in ((longest, shorter), (shorter, longest)):
        what = f"velocity of {width}x{height} pixels"
        if spec.max_size is None:
            what = f"latent.max_size is None, which says that there is no limit; then {what}"
        _traced(what, partial(_quiet, backbone, _noise(backbone, 1, height, width), text), text)


def _check_planning(backbone: Backbone) -> None:
    """A step of sampling and one of training, as `d4k plan` traces them."""
    side, text = 8 * backbone.latent.granularity, _text(backbone, ["one"])
    noisy = _noise(backbone, 1, side, side)
    step = _traced("planning a sampling step", partial(_quiet, backbone, noisy, text), text)
    assert step.flops > 0, "a sampling step takes operations"
    module: Any = backbone.trainable
    module.train().requires_grad_(True)
    train = partial(backbone.velocity, noisy.float(), _levels(noisy), text)
    try:
        plain = _traced("planning a training step", train, text, narrow=True)
        assert plain.flops > step.flops, "a training step takes operations backwards, too"
        if hasattr(module, "enable_gradient_checkpointing"):
            module.enable_gradient_checkpointing()
            _traced("planning a training step with gradient checkpointing", train, text, narrow=True)
    finally:
        module.eval().zero_grad(set_to_none=True)


def _traced(what: str, run: Callable[[], Tensor], text: Conditioning, *, narrow: bool = False) -> Trace:
    """What planning says of a computation; masks of `text` are for models that read them."""
    return attempt(what, partial(trace, run, torch.bfloat16 if narrow else None, ones_of(text)))


def _noise(backbone: Backbone, count: int, height: int, width: int) -> Tensor:
    spec, parameter = backbone.latent, next(backbone.trainable.parameters())
    shape = (count, spec.channels, height // spec.downscale, width // spec.downscale)
    return torch.empty(shape, device="meta", dtype=parameter.dtype)


def _levels(noisy: Tensor) -> Tensor:
    return noisy.new_empty(len(noisy), dtype=torch.float32)


def _text(backbone: Backbone, prompts: list[str]) -> Conditioning:
    shown = f'encode_text({prompts}, "") on the device meta'
    text: Conditioning = attempt(shown, lambda: backbone.encode_text(prompts, ""))
    return text


def _quiet(backbone: Backbone, noisy: Tensor, text: Conditioning) -> Tensor:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return backbone.velocity(noisy, _levels(noisy), text, 3.0)
