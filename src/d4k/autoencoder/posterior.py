"""What an autoencoder says of a picture: a normal distribution of latents."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

__all__ = ["Posterior"]


@frozen(eq=False)
class Posterior:
    """A normal distribution of latents, each number independent of the others.

    Args:
        mean: (B, C, h, w), scaled to about unit variance as `d4k.Backbone.encode_image` does; it is the mode, too.
        log_variance: of the same shape and scale; None where the autoencoder has no posterior, but one latent.

    Source: Kingma and Welling 2013, arXiv 1312.6114.

    >>> Posterior(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)).sample(torch.full((1, 1, 1, 1), 2.0)).item()
    2.0
    """

    mean: Tensor
    log_variance: Tensor | None = None

    def sample(self, noise: Tensor) -> Tensor:
        """A latent of the distribution.

        Args:
            noise: standard normal, of the shape of `mean`.

        Returns:
            `mean + exp(log_variance / 2) * noise`; the mean where there is no variance.
        """
        if self.log_variance is None:
            return self.mean
        return self.mean + torch.exp(0.5 * self.log_variance) * noise
