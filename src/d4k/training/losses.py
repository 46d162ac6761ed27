"""The plain loss that the core itself registers."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from d4k.protocols import FlowStep

__all__ = ["MSELoss"]


@frozen
class MSELoss:
    """Mean squared error of the velocity: the plain objective of rectified flow.

    Source: SD3, Esser et al. 2024, arXiv 2403.03206, section 2.

    >>> import torch
    >>> zero = torch.zeros(2, 4, 8, 8)
    >>> MSELoss()(zero, FlowStep(clean=zero, noise=zero + 3, sigma=torch.ones(2)))
    tensor([9., 9.])
    """

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        """Compare a predicted velocity with a step.

        Args:
            velocity: (B, C, h, w), any floating-point dtype.
            step: of the same shape.

        Returns:
            (B,) float32, the mean over C, h and w, accumulated in float32.
        """
        return (velocity.float() - step.velocity.float()).square().flatten(1).mean(1)
