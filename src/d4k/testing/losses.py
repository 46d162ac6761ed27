"""The contract of a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from d4k.protocols import FlowStep, Loss
from d4k.testing.attempt import attempt, check_options, shape_of

__all__ = ["check_loss"]

SHAPES = ((3, 4, 16, 12), (2, 4, 15, 11), (2, 16, 1, 6))
"""Latents have odd sides where a model has no patches, and are narrow where a picture is a strip."""


def check_loss(loss: Loss) -> None:
    """Check a loss on latents of even, odd and narrow sides.

    It returns one float32 value a sample, independent of the other samples, zero at the truth and above it elsewhere;
    its gradient leads downhill; it takes any float dtype and every noise level, and changes none of its inputs.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(loss)
    for shape in SHAPES:
        _check_on(loss, shape)
    _check_levels(loss)


def _check_on(loss: Loss, shape: tuple[int, ...]) -> None:
    count, size = shape[0], "x".join(map(str, shape[2:]))
    generator = torch.Generator().manual_seed(0)
    clean, noise, wrong = (torch.randn(shape, generator=generator) for _ in range(3))
    step = FlowStep(clean, noise, torch.linspace(0.1, 0.9, count))
    predicted = (step.velocity + wrong).requires_grad_()
    kept = (clean.clone(), noise.clone(), predicted.detach().clone())
    value = _value(loss, predicted, step)
    now = (step.clean, step.noise, predicted.detach())
    assert all(map(torch.equal, now, kept)), "a loss leaves its inputs as they are"
    assert value.shape == (count,), f"a loss returns one value a sample: ({count},), got {shape_of(value)}"
    assert value.dtype == torch.float32, f"a loss returns float32, got {value.dtype}"
    assert torch.isfinite(value).all(), f"a loss is finite for finite input, also for latents of {size}"
    assert (value > 0).all(), "a loss is above zero where the prediction is wrong"
    _check_gradient(loss, predicted, step, value)
    right = _value(loss, step.velocity, step).abs().max()
    assert right < 1e-6, f"a loss is zero where the prediction is right, got {float(right):.3g}"
    alone = _value(loss, predicted[1:2], FlowStep(clean[1:2], noise[1:2], step.sigma[1:2]))
    assert torch.allclose(alone, value[1:2], rtol=1e-4), "the loss of a sample does not depend on its batch"
    half = FlowStep(clean.bfloat16(), noise.bfloat16(), step.sigma)
    narrow = _value(loss, predicted.detach().bfloat16(), half)
    assert narrow.dtype == torch.float32, f"a loss of bfloat16 input is float32, got {narrow.dtype}"


def _check_gradient(loss: Loss, predicted: Tensor, step: FlowStep, value: Tensor) -> None:
    assert value.requires_grad, "a loss has a gradient with respect to the prediction"
    attempt("the backward pass of a loss", lambda: torch.autograd.backward(value.sum()))
    gradient = predicted.grad
    assert gradient is not None, "a loss has a gradient with respect to the prediction"
    assert torch.isfinite(gradient).all(), "the gradient of a loss is finite"
    assert gradient.abs().sum() > 0, "the gradient of a loss is not zero where the prediction is wrong"
    with torch.no_grad():
        lower = _value(loss, predicted - 0.01 * gradient / gradient.abs().max(), step)
    assert lower.sum() < value.sum(), "a loss falls against its gradient"


def _check_levels(loss: Loss) -> None:
    """No noise and nothing but noise are among the levels that training sees."""
    generator = torch.Generator().manual_seed(0)
    clean, noise, wrong = (torch.randn(2, 4, 16, 12, generator=generator) for _ in range(3))
    step = FlowStep(clean, noise, torch.tensor([0.0, 1.0]))
    value = _value(loss, step.velocity + wrong, step)
    assert torch.isfinite(value).all(), f"a loss is finite at the noise levels 0 and 1, got {value.tolist()}"


def _value(loss: Loss, velocity: Tensor, step: FlowStep) -> Tensor:
    shape = shape_of(velocity)
    value = attempt(f"a loss of a {velocity.dtype} velocity of {shape}", lambda: loss(velocity, step))
    assert isinstance(value, Tensor), f"a loss returns a tensor, got {shape_of(value)}"
    return value
