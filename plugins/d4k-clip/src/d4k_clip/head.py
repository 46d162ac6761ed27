"""The LAION aesthetics predictor: five linear layers on an image embedding of CLIP."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from d4k import CheckpointError
from d4k_clip.weights import read_weights

__all__ = ["LAYERS", "Head", "read_head"]

LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers among the modules; the others are dropout, which does nothing when it measures."""


class Head:
    """Linear layers one after the other, without activations between; computed in float64.

    Args:
        layers: weight (out, in) and bias (out,) of each.
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]]) -> None:
        self._layers = [(weight.double(), bias.double()) for weight, bias in layers]

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return self._layers[0][0].shape[1]

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Scores (B,) float64, about 1 to 10, of embeddings (B, E) of length 1."""
        values = embeddings.double()
        for weight, bias in self._layers:
            values = F.linear(values, weight, bias)
        return values[:, 0]


def read_head(path: Path) -> Head:
    """The head in a file: `layers.N.weight` and `layers.N.bias` for N in `LAYERS`.

    Raises:
        CheckpointError: the file holds something else.
    """
    state = read_weights(path)
    wanted = {f"layers.{place}.{kind}" for place in LAYERS for kind in ("weight", "bias")}
    if set(state) != wanted:
        odd = sorted(set(state) ^ wanted)[0]
        raise CheckpointError(f"{path} is no aesthetics head of {len(LAYERS)} linear layers: {odd} does not match")
    layers = [(state[f"layers.{place}.weight"], state[f"layers.{place}.bias"]) for place in LAYERS]
    width = layers[0][0].shape[-1]
    for weight, bias in layers:
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
            raise CheckpointError(f"{path} is no aesthetics head: a layer of {tuple(weight.shape)} follows {width}")
        width = weight.shape[0]
    if width != 1 or not all(torch.isfinite(part).all() for layer in layers for part in layer):
        raise CheckpointError(f"{path} is no aesthetics head: it must end in one finite number")
    return Head(layers)
