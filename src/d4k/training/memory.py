"""What a run does to fit into memory, and which of it does not go together."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch

from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.models import check_placement
from d4k.protocols import Placement

__all__ = ["check_memory_settings", "offloaded_activations"]

OFFLOADABLE = ("adamw", "adamw-bf16")
"""Optimizers whose step of one weight looks at that weight alone, and whose state is worth moving."""
UNSHARED = {
    "adamw-8bit": "whose checkpoints hold no tensors in 8 bits",
    "prodigy": "whose checkpoints hold state of the shape of the weights alone",
}
"""Optimizers that do not work with fsdp2, and why."""
LEAST_FACTOR = 0.01
"""The learning rate of Prodigy is a factor of the one that it finds: with less than this it hardly trains."""


class offloaded_activations(AbstractContextManager[None]):  # noqa: N801  (used as a function)
    """A forward pass whose activations wait for the backward pass in CPU memory, bit for bit as they were.

    With gradient checkpointing what waits is the input of each block. Weights, which autograd keeps as well, stay where
    they are.

    Args:
        module: that computes.
        wanted: `training.activation_offload`; otherwise nothing is moved.

    Source: torch.autograd.graph.save_on_cpu.
    """

    def __init__(self, module: torch.nn.Module, wanted: bool) -> None:
        self.hooks: AbstractContextManager[None] = _OnCPU(module) if wanted else nullcontext()

    def __enter__(self) -> None:
        self.hooks.__enter__()

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)  # type: ignore[arg-type]


class _OnCPU(torch.autograd.graph.save_on_cpu):
    """torch's hooks, which leave out the weights."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(pin_memory=torch.cuda.is_available())
        move = self.pack_hook
        weights = {_place(tensor) for tensor in module.parameters() if tensor.numel()}

        def pack(tensor: torch.Tensor) -> tuple[torch.device, torch.Tensor]:
            if tensor.numel() and _place(tensor) in weights:
                return tensor.device, tensor
            moved: tuple[torch.device, torch.Tensor] = move(tensor)
            return moved

        self.pack_hook = pack


def _place(tensor: torch.Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # of tensors that others are wrapped in, such as those in 8 bits
        return id(tensor)


def check_memory_settings(
    config: RunConfig, processes: int = 1, strategy: str = "single", device: torch.device | None = None
) -> None:
    """Refuse what does not go together, before anything is loaded.

    Args:
        config: of the run.
        processes: that share it.
        strategy: how they share it: "single", "ddp" or "fsdp2".
        device: where this process computes; None does not say.

    Raises:
        ConfigError: a sentence about the first of the settings that do not go together.
    """
    for message in _contradictions(config, processes, strategy):
        raise ConfigError(message)
    if config.adapter is not None and config.adapter.quantize is not None:
        place = device or torch.device("cpu")
        check_placement(Placement(place, torch.float32, quantize=config.adapter.quantize))
    if device is None or device.type != "cpu":
        return
    if config.parallel.offload == "optimizer":
        raise ConfigError(
            "parallel.offload = 'optimizer' keeps state in CPU memory while a GPU computes, and this device is the "
            "CPU: leave it out"
        )
    if config.training.activation_offload:
        warnings.warn("training.activation_offload has no effect on a CPU, whose memory they are in", stacklevel=2)


def _contradictions(config: RunConfig, processes: int, strategy: str) -> Iterator[str]:
    yield from _of_optimizer(config, strategy)
    if config.parallel.offload == "optimizer":
        yield from _of_offload(config, processes, strategy)


def _of_optimizer(config: RunConfig, strategy: str) -> Iterator[str]:
    optimizer, precision = config.optimizer, config.training.precision
    if strategy == "fsdp2" and optimizer.name in UNSHARED:
        yield (
            f"optimizer.name = '{optimizer.name}' does not work with fsdp2, {UNSHARED[optimizer.name]}: choose "
            "'adamw', whose state every process has a share of"
        )
    if optimizer.name == "schedule-free" and config.schedule.name != "constant":
        yield (
            f"schedule.name = '{config.schedule.name}' does not go with the optimizer 'schedule-free', which needs "
            "none: leave it out, and set optimizer.options.warmup_steps for a warm-up"
        )
    if optimizer.name == "prodigy" and optimizer.lr < LEAST_FACTOR:
        yield (
            f"optimizer.lr = {optimizer.lr:g} with 'prodigy' is a factor of the learning rate that it finds itself: "
            "set it to 1"
        )
    if optimizer.name == "adamw-bf16" and config.adapter is not None:
        yield "optimizer.name = 'adamw-bf16' is for all weights, and those of an adapter are few: choose 'adamw'"
    if optimizer.name == "adamw-bf16" and precision != "bf16":
        yield (
            f"optimizer.name = 'adamw-bf16' keeps the weights in bfloat16, and training.precision = '{precision}' "
            "computes in another: set it to 'bf16'"
        )


def _of_offload(config: RunConfig, processes: int, strategy: str) -> Iterator[str]:
    """What torchao's offloaded optimizer cannot do: it takes each gradient to the CPU as soon as it is there."""
    setting, training = "parallel.offload = 'optimizer'", config.training
    if strategy == "fsdp2":
        yield f"{setting} does not work with fsdp2, whose weights are in shares: choose parallel.offload = 'all'"
    if processes > 1:
        yield (
            f"{setting} takes gradients to the CPU before several processes have averaged them: choose "
            "parallel.strategy = 'fsdp2' with offload = 'all', or one process"
        )
    if training.clip:
        yield f"{setting} takes gradients to the CPU before they can be clipped: set training.clip = 0"
    if config.schedule.name != "constant":
        yield (
            f"{setting} has no learning rate that schedule.name = '{config.schedule.name}' could change: choose "
            "'constant'"
        )
    if training.precision == "fp16":
        yield f"{setting} takes gradients to the CPU before their scale is undone: set training.precision = 'bf16'"
    if config.optimizer.name not in OFFLOADABLE and ":" not in config.optimizer.name:
        yield (
            f"{setting} does not work with the optimizer '{config.optimizer.name}': choose one of "
            f"{', '.join(OFFLOADABLE)}, or a class whose step of one weight looks at that weight alone"
        )
