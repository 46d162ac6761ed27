"""The contract of a loss passes what keeps it and fails, with a sentence, whatever breaks a clause of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

from d4k import FlowStep
from d4k.testing import check_loss
from d4k.training import MSELoss

MSE = MSELoss()


@frozen
class Loss:
    """A loss made of a function."""

    function: Callable[[Tensor, FlowStep], Tensor]

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        return self.function(velocity, step)


class Uphill(torch.autograd.Function):
    """The identity, with a gradient of the wrong sign."""

    @staticmethod
    def forward(ctx: Any, velocity: Tensor) -> Tensor:
        return velocity.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def halved(latent: Tensor) -> Tensor:
    """Means of two by two, for even sides only."""
    count, channels, height, width = latent.shape
    return latent.reshape(count, channels, height // 2, 2, width // 2, 2).mean((3, 5))


def halved_step(step: FlowStep) -> FlowStep:
    return FlowStep(halved(step.clean), halved(step.noise), step.sigma)


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
        (lambda v, s: MSE(v, s) / s.sigma, "finite at the noise levels 0 and 1"),
        (
            lambda v, s: MSE(v.add_(0 * v.detach()) if v.is_leaf and not v.requires_grad else v * 1, s).tolist(),
            "a tensor",
        ),
        (lambda v, s: MSE(halved(v), halved_step(s)), "a loss of a torch.float32 velocity of .2, 4, 15, 11. must work"),
        (lambda v, s: MSE(Uphill.apply(v), s), "a loss falls against its gradient"),  # type: ignore[no-untyped-call]
        (
            lambda v, s: MSE(v, FlowStep(s.clean.mul_(2), s.noise, s.sigma)) * 0 + MSE(v, s),
            "leaves its inputs as they are",
        ),
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
