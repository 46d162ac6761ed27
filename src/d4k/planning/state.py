"""Bytes of the state of each optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

__all__ = ["COPIES", "state_bytes", "update_bytes"]

COPIES: Mapping[str, int] = {"adamw": 2, "adamw-bf16": 2, "prodigy": 4, "schedule-free": 2}
"""Tensors of the size and dtype of a weight that an optimizer keeps for it; one that is not known here has two."""

BLOCK = 256
LEAST = 4096
"""Weights with fewer numbers than this have a state in 32 bits; others in 8, with a float32 scale for each block."""


def state_bytes(module: nn.Module, optimizer: str) -> int:
    """Bytes of an optimizer's state for the weights that are trained.

    Args:
        module: the denoiser, prepared for the run.
        optimizer: its name, or `module:Class`.
    """
    trained = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
    if optimizer == "adamw-8bit":
        return sum(map(_eight_bits, trained.values()))
    if optimizer == "muon":  # a momentum for the matrices of the blocks, AdamW's two moments for the rest
        inside = {
            name for name, tensor in trained.items() if tensor.ndim == 2 and any(map(str.isdigit, name.split(".")))
        }
        return sum((1 if name in inside else 2) * _size(tensor) for name, tensor in trained.items())
    return COPIES.get(optimizer, 2) * sum(map(_size, trained.values()))


def update_bytes(trained: Iterable[Tensor], optimizer: str) -> int:
    """Bytes that a step of the optimizer makes beside its state: those that step weight by weight make hardly any."""
    weights = list(trained)
    if optimizer in ("adamw", "adamw-8bit", "adamw-bf16", "prodigy", "muon"):
        return 4 * max((tensor.numel() for tensor in weights), default=0)
    return sum(map(_size, weights))


def _eight_bits(tensor: Tensor) -> int:
    numbers = tensor.numel()
    if numbers < LEAST or numbers % BLOCK:
        return 2 * _size(tensor)
    return 2 * (numbers + 4 * numbers // BLOCK)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
