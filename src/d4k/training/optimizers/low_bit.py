"""AdamW with state in 8 bits, or with weights and state in bfloat16, by torchao."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torchao.optim import AdamW8bit, _AdamW

from d4k.seeds import numbered_seed

__all__ = ["eight_bit", "rounding"]


def eight_bit() -> Callable[..., Any]:
    """AdamW whose two moments are held in 8 bits, with a float32 scale for each 256."""
    return _Eager


def rounding(seed: int) -> Callable[..., Any]:
    """AdamW that rounds weights in bfloat16 up or down at random, so that small updates are not lost.

    Args:
        seed: of the run; with the number of the step it decides how weights are rounded.
    """

    def make(*parameters: Any, **options: Any) -> torch.optim.Optimizer:
        return _Rounding(*parameters, seed=seed, bf16_stochastic_round=True, **options)

    known = inspect.signature(_AdamW).parameters.values()
    kept = [parameter for parameter in known if parameter.name != "bf16_stochastic_round"]
    make.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
    return make


class _Eager(AdamW8bit):  # type: ignore[misc]
    """torchao's, compiled on a GPU only: on a CPU compiling takes a minute for each shape, and a C++ compiler."""

    def step(self, closure: Any = None) -> Any:
        """Do a step."""
        with _plain(self):
            return super().step(closure)


class _Rounding(_AdamW):  # type: ignore[misc]
    """torchao's, rounding by the seed of the run and the number of the step and not by torch's running state.

    Args:
        parameters: as of torch's optimizers.
        seed: of the run.
        options: of torchao's AdamW.
    """

    def __init__(self, *parameters: Any, seed: int, **options: Any) -> None:
        self.seed = seed
        super().__init__(*parameters, **options)

    def step(self, closure: Any = None) -> Any:
        """Do a step."""
        number = max((int(state["step"]) for state in self.state.values()), default=0)
        with _plain(self), _seeded(numbered_seed(self.seed, "rounding", number), _device(self)):
            return super().step(closure)


def _device(optimizer: torch.optim.Optimizer) -> torch.device:
    found: torch.device = optimizer.param_groups[0]["params"][0].device
    return found


def _plain(optimizer: torch.optim.Optimizer) -> Any:
    return nullcontext() if _device(optimizer).type == "cuda" else torch.compiler.set_stance("force_eager")


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
