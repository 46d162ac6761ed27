"""Optimizer state in CPU memory, by torchao: weights and gradients travel, and the step is computed on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

__all__ = ["OffloadedOptimizer", "offloaded"]


def offloaded(
    found: Callable[..., Any], trained: Sequence[torch.nn.Parameter], options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    """An optimizer of weights on a GPU whose state is in CPU memory.

    Args:
        found: the class of the optimizer.
        trained: what it trains.
        options: what it is made with.
    """
    from torchao.optim import CPUOffloadOptimizer

    return OffloadedOptimizer(trained, CPUOffloadOptimizer(trained, found, **options))


class OffloadedOptimizer(torch.optim.Optimizer):
    """torchao's `CPUOffloadOptimizer` with the groups, the state and the checkpoints of any other optimizer of torch.

    Args:
        trained: parameters on the device.
        inner: of torchao. It holds an optimizer for each large parameter, of a copy in CPU memory, and one for all
            small parameters, where they are.
    """

    def __init__(self, trained: Sequence[torch.nn.Parameter], inner: Any) -> None:
        self.inner = inner
        super().__init__(trained, {key: value for key, value in inner.param_groups[0].items() if key != "params"})

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Do a step."""
        return self.inner.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of the gradients on the device."""
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As torch's optimizers have it: the state by number of the parameter."""
        parameters = self.param_groups[0]["params"]
        state = {number: dict(self._state(parameter)) for number, parameter in enumerate(parameters)}
        groups = [{**self.param_groups[0], "params": list(range(len(parameters)))}]
        return {"state": {number: values for number, values in state.items() if values}, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the state back, and copy the weights on the device, which are loaded before it, to CPU memory again."""
        small = self.inner.d_opt.state_dict() if self.inner.d_opt else {"param_groups": []}
        small["state"], place = {}, 0
        for number, parameter in enumerate(self.param_groups[0]["params"]):
            values = state_dict["state"].get(number)
            if parameter in self.inner.optim_dict:
                own = self.inner.optim_dict[parameter]
                own.load_state_dict({**own.state_dict(), "state": {} if values is None else {0: values}})
                with torch.no_grad():
                    self.inner.param_d2h_map[parameter].copy_(parameter.detach())
                continue
            small["state"] |= {} if values is None else {place: values}
            place += 1
        if self.inner.d_opt:
            self.inner.d_opt.load_state_dict(small)

    def _state(self, parameter: torch.Tensor) -> Mapping[str, Any]:
        if parameter in self.inner.optim_dict:
            return self.inner.optim_dict[parameter].state[self.inner.param_d2h_map[parameter]]  # type: ignore[no-any-return]
        return self.inner.d_opt.state[parameter]  # type: ignore[no-any-return]
