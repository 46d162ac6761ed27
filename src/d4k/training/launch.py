"""How the processes of a launch find each other, and what launches are refused before anything is loaded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.processes import StoppedElsewhereError, check_found, first_process, meeting, process_count

__all__ = ["check_launch", "chosen_strategy", "first_process", "joined", "process_count", "speaking_once"]

OFF = ("", "0", "f", "false", "n", "no", "off")
UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism configuration of accelerate (tensor parallelism)",
}
FSDP = "ACCELERATE_USE_FSDP"


def chosen_strategy(config: RunConfig) -> str:
    """How the run is shared: "single", "ddp" or "fsdp2"; see `d4k.config.ParallelSettings`."""
    asked = config.parallel.strategy
    if asked == "fsdp2" or (asked == "auto" and _told(FSDP)):
        return "fsdp2"
    return "ddp" if process_count() > 1 else "single"


def check_launch(config: RunConfig) -> None:
    """Refuse to train in a launch, or with settings of it, that cannot work.

    Args:
        config: of the run.

    Raises:
        ConfigError: accelerate was told to use what d4k does not support, the settings of `parallel` contradict each
            other or the launch, or the processes cannot find each other.
    """
    word = next((word for name, word in UNSUPPORTED.items() if _told(name)), None)
    if word is None and _told(FSDP) and os.environ.get("FSDP_VERSION", "1") != "2":
        word = "FSDP1"
    if word is not None:
        raise ConfigError(
            f"training does not work with {word}: use DDP (accelerate launch --multi_gpu, or torchrun) or FSDP2 "
            "(parallel.strategy = 'fsdp2', or accelerate's fsdp_version: 2)"
        )
    if _told(FSDP) and config.parallel.strategy == "ddp":
        raise ConfigError("accelerate was told to use FSDP2, and parallel.strategy is 'ddp': make them agree")
    check_found()
    _check_settings(config)


def _check_settings(config: RunConfig) -> None:
    """Refuse settings that do not go with how the run is shared."""
    strategy, parallel = chosen_strategy(config), config.parallel
    if parallel.offload == "all" and strategy != "fsdp2":
        raise ConfigError("parallel.offload = 'all' needs parallel.strategy = 'fsdp2'; set that, or offload less")
    if strategy == "fsdp2" and config.training.precision == "fp16":
        raise ConfigError(
            "training.precision = 'fp16' does not work with fsdp2, whose gradients have no common scale: choose 'bf16'"
        )
    if strategy == "fsdp2" and config.adapter is not None and config.adapter.quantize is not None:
        raise ConfigError(
            f"adapter.quantize = '{config.adapter.quantize}' does not work with fsdp2, which cannot share out such "
            "weights: choose parallel.strategy = 'ddp', whose processes hold all of them"
        )
    if process_count() % parallel.context:
        raise ConfigError(
            f"parallel.context is {parallel.context}, which does not divide the {process_count()} processes of this "
            "launch: so many share a picture. Start more processes, or set it to 1"
        )
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if process_count() > 1 and told not in ("no", config.training.precision):
        warnings.warn(
            f"accelerate was told mixed_precision = '{told}', which is ignored: training.precision = "
            f"'{config.training.precision}' of the run decides",
            stacklevel=4,
        )


@contextmanager
def joined(config: RunConfig, device: torch.device) -> Iterator[None]:
    """A block in which the processes of the launch can speak to each other; a group that is open already is used.

    Args:
        config: of the run.
        device: where this process computes.
    """
    strategy = chosen_strategy(config)
    if strategy == "single" or dist.is_initialized():
        yield
        return
    with meeting(device):
        yield


@contextmanager
def speaking_once() -> Iterator[None]:
    """A block before the processes of a launch meet, of which only the first says what is refused: each refuses it."""
    try:
        yield
    except ConfigError as error:
        if first_process():
            raise
        raise StoppedElsewhereError(f"the first process says the same: {error}") from error


def _told(name: str) -> bool:
    return os.environ.get(name, "").lower() not in OFF
