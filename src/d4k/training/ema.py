"""An exponential moving average of the trained weights, and how it takes their place for a look or for good.

diffusers' `EMAModel` does not do: it takes the weights' own dtype, cannot average on another device, keeps no names,
and takes the first step whole. torch's `AveragedModel` copies the whole module, also what is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from d4k.config import EMASettings

__all__ = ["EMA", "kept", "kept_share", "share_again"]


def kept_share(decay: float, step: int) -> float:
    """The share of the average that step `step` keeps: `min(decay, (1 + step) / (10 + step))`.

    At 0.9999 alone, the average of a run of 1,000 steps would be nine tenths the weights that it began with. So the
    first steps keep less; from step `(10 * decay - 1) / (1 - decay)` on, it is `decay`.

    Args:
        decay: largest share, in [0, 1).
        step: optimizer steps done, counted from 1.

    >>> [round(kept_share(0.9, step), 3) for step in (1, 10, 100)]
    [0.182, 0.55, 0.9]
    """
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """An exponential moving average of the weights that a run trains, in float32.

    Args:
        module: unwrapped, as it is when the steps begin: with its adapter, and where several processes share the
            weights (FSDP2) after they were shared. The average begins with its weights.
        settings: of the average.

    Attributes:
        tensors: name of a parameter in the module -> its average, float32; a share of it (DTensor) where the module
            holds a share. It is all that a checkpoint needs, and is filled in place to go on from one.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 30(4), 1992.
    """

    def __init__(self, module: nn.Module, settings: EMASettings) -> None:
        self.decay = settings.decay
        where = torch.device("cpu") if settings.device == "cpu" else None
        self.tensors: dict[str, Tensor] = {
            name: parameter.detach().to(where or parameter.device, torch.float32, copy=True)
            for name, parameter in _trained(module).items()
        }

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take the weights after an optimizer step into the average; a step that was skipped is none.

        Args:
            module: as it was given at first.
            step: optimizer steps done, counted from 1: it decides how much is kept, see `kept_share`.
        """
        weight = 1 - kept_share(self.decay, step)
        for average, parameter in self._pairs(module):
            average.lerp_(parameter.to(average.device, torch.float32), weight)

    @torch.no_grad()
    def put_into(self, module: nn.Module) -> None:
        """Give the module the averaged weights for good; the average itself stays as it is."""
        for average, parameter in self._pairs(module):
            parameter.copy_(average)

    @contextmanager
    def swapped(self, module: nn.Module) -> Iterator[None]:
        """The time in which the module has the averaged weights; it gets its own back bit by bit.

        They are kept where the average is held, which needs as much memory again.
        """
        with kept(module, where={name: average.device for name, average in self.tensors.items()}):
            self.put_into(module)
            yield

    def _pairs(self, module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Each average with its parameter: what this process holds of them."""
        trained = _trained(module)
        for name, average in self.tensors.items():
            yield _local(average), _local(trained[name].detach())


@contextmanager
def kept(module: nn.Module, where: Mapping[str, torch.device] | None = None) -> Iterator[None]:
    """The time in which the trained weights of a module may be changed; they are put back bit by bit.

    Args:
        module: unwrapped.
        where: name of a parameter -> where it is kept meanwhile; None keeps it on its own device.
    """
    trained = {name: _local(parameter.detach()) for name, parameter in _trained(module).items()}
    aside = {name: tensor.to((where or {}).get(name, tensor.device), copy=True) for name, tensor in trained.items()}
    try:
        yield
    finally:
        share_again(module)
        with torch.no_grad():
            for name, tensor in trained.items():
                tensor.copy_(aside[name])


def share_again(module: nn.Module) -> None:
    """Let each process hold its share alone (FSDP2); nothing where weights are not shared.

    After a forward pass without gradients FSDP2 leaves the last weights whole, and goes on with these copies whatever
    happens to the shares.
    """
    for part in module.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    share_again(module)
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor; a view of the same memory."""
    if isinstance(tensor, DTensor):
        held: Tensor = tensor.to_local()
        return held
    return tensor
