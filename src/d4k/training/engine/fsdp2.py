"""Several processes, each with a share of every weight, gradient and moment, through torch's `fully_shard` (FSDP2)."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from hashlib import sha256
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from d4k.config import RunConfig
from d4k.errors import CheckpointError, ConfigError
from d4k.models import autocast_dtype
from d4k.processes import Processes
from d4k.training.engine.context import quiet_context, share_tokens
from d4k.training.engine.single import Engine
from d4k.training.shards import is_shared
from d4k.upstream import block_names, forget_shares, join_tokens

__all__ = ["FSDP2Engine"]


class FSDP2Engine(Engine):
    """Several processes that hold a share of every weight; a block is whole while it computes, and no longer.

    Gradients are reduced in every forward pass, not in the last of a step alone: so no device holds a whole gradient.

    Args:
        config: of the run.
        device: where this process computes; the weights may lie on the CPU until they are shared out.
    """

    strategy = "fsdp2"

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.processes = config, Processes()
        self.place, self.dtype = device, autocast_dtype(config.training.precision)
        self.plain, self.context = _Plain(), config.parallel.context

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.place

    @property
    def scaler(self) -> Any:
        """None: float16 is refused."""
        return None

    def share(self, module: torch.nn.Module) -> None:
        """Share out the weights block by block, so that no device ever holds all of them.

        Products are computed in the precision of the run, as autocast says; weights travel in it, and gradients are
        averaged in float32. Inputs are not converted: a timestep in bfloat16 would be another one.

        Raises:
            CheckpointError: the processes have loaded different weights.
            ConfigError: a run that was broken off has shared them out already.
        """
        if is_shared(module):
            raise ConfigError(
                "the weights in memory are still shared out between the processes of a run that was interrupted: load "
                "the model again before you train it"
            )
        if len(set(self.processes.gather(_beginnings(module)))) > 1:
            raise CheckpointError(
                "the processes have loaded different weights, of which each would keep its share: do all of them see "
                "the same folder, or revision?"
            )
        self.plain = _Plain(module)
        if self.context > 1:
            share_tokens(module, self.context, self.processes, self.device)
        offloads = self.config.parallel.offload == "all"
        settings: dict[str, Any] = {
            "mesh": init_device_mesh(self.device.type, (self.processes.count,)),
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=self.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
            ),
            "offload_policy": CPUOffloadPolicy(pin_memory=self.device.type == "cuda") if offloads else OffloadPolicy(),
        }
        blocks = block_names(module)
        for block in list(module.modules()):
            if type(block).__name__ in blocks:
                fully_shard(block, **settings)
        fully_shard(module, **settings)

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module itself, which `share` has changed in place."""
        return module

    def unwrap(self, wrapped: torch.nn.Module) -> torch.nn.Module:
        """The module itself; `gather` makes it whole."""
        return wrapped

    def gather(self, module: torch.nn.Module) -> None:
        """Undo `share`: the first process has the whole module again, where its weights were; the others have none."""
        whole: Any = get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if self.context > 1:
            join_tokens(module)
        self.plain.restore(module, whole)

    def break_off(self, module: torch.nn.Module) -> None:
        """Undo `share` in a launch of one process; several would have to ask."""
        if self.processes.count == 1 and is_shared(module):
            self.gather(module)

    def wrap_optimizer(self, optimizer: torch.optim.Optimizer) -> Any:
        """The optimizer itself."""
        return optimizer

    @contextmanager
    def forward_pass(self, wrapped: torch.nn.Module) -> Iterator[None]:  # noqa: ARG002
        """A context for one of the forward and backward passes of a step."""
        with (
            quiet_context(),
            warnings.catch_warnings(),
        ):  # of changes in place to what a block returns, which no denoiser here makes
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
            yield

    def autocast(self) -> Any:
        """A context that computes in the precision of the run."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of one pass, which counts as much as each of the others of its step."""
        # processes that share a picture have a part of its gradient each: their sum is wanted, and the mean is taken
        (loss * self.context / self.config.training.accumulation).backward()  # type: ignore[no-untyped-call]

    def clip(self, wrapped: torch.nn.Module, largest: float) -> torch.Tensor:
        """Scale the gradient down to a largest norm, 0 leaving it alone, and return the norm that it had, a scalar."""
        gradients: list[Any] = [parameter.grad for parameter in wrapped.parameters() if parameter.grad is not None]
        shares = [gradient.to_local() for gradient in gradients]
        square = torch.nn.utils.get_total_norm(shares).square()[None]
        norm = self.processes.sums(square)[0].sqrt()
        if largest:
            factor = (largest / (norm + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_
            for share in shares:
                share.mul_(factor)
        return norm


def _beginnings(module: torch.nn.Module) -> str:
    """A digest of the names of the weights and of the first values of each, which tells models apart."""
    digest = sha256()
    for name, parameter in module.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.detach().flatten()[:8].tolist()}".encode())
    return digest.hexdigest()


class _Plain:
    """What `fully_shard` changes of a module and the modules in it, but for the weights, to put it back.

    Args:
        module: before it is shared out.
    """

    def __init__(self, module: torch.nn.Module | None = None) -> None:
        self.kept = [] if module is None else [(part, type(part), _state(part)) for part in module.modules()]
        self.device = torch.device("cpu") if module is None else next(module.parameters()).device

    def restore(self, module: torch.nn.Module, whole: dict[str, torch.Tensor]) -> None:
        """Put back what was changed, and the weights, if this process has them: it is the first."""
        trained = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
        for part, its_class, state in self.kept:
            part.__class__ = its_class
            vars(part).clear()
            vars(part).update(state)
        forget_shares(module)
        for name, requires_grad in trained.items():
            owner, _, own = name.rpartition(".")
            value = whole[name].to(self.device) if whole else torch.empty(0, device=self.device)
            module.get_submodule(owner)._parameters[own] = torch.nn.Parameter(value, requires_grad=requires_grad)


def _state(part: torch.nn.Module) -> dict[str, Any]:
    """A module's attributes, its parameters by name alone: the values belong to the processes that share them."""
    plain = (dict, OrderedDict)  # of submodules, buffers and hooks; a model's configuration is a kind of its own
    kept = {name: copy(value) if type(value) in plain else value for name, value in vars(part).items()}
    return {**kept, "_parameters": dict.fromkeys(part._parameters)}
