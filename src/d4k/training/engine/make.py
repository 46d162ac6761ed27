"""The engine of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.training.engine.ddp import DDP_SETTINGS, DDPEngine
from d4k.training.engine.fsdp2 import FSDP2Engine
from d4k.training.engine.single import Engine
from d4k.training.launch import chosen_strategy, process_count
from d4k.upstream import patch_environment, reset_accelerator

__all__ = ["make_engine"]

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "FORK_LAUNCHED")
"""What a launcher sets in the environment of each process; it makes accelerate share the work."""


def make_engine(config: RunConfig, device: torch.device) -> Engine:
    """What runs the steps of a run, set up by its own settings and by nothing else.

    Args:
        config: of the run.
        device: where this process computes.

    Raises:
        ConfigError: several processes were started in a way that accelerate does not see.
    """
    strategy = chosen_strategy(config)
    if strategy == "fsdp2":
        return FSDP2Engine(config, device)
    several = strategy == "ddp"
    # a second run in one process may ask for another precision or device, which accelerate's shared state would refuse
    reset_accelerator()
    with _without_environment(several), patch_environment(ACCELERATE_TORCH_DEVICE=str(device)):
        accelerator = Accelerator(
            gradient_accumulation_steps=config.training.accumulation,
            mixed_precision=config.training.precision,
            cpu=device.type == "cpu",
            kwargs_handlers=[DDP_SETTINGS] if several else [],
        )
    if several and accelerator.num_processes != process_count():  # it would train each by itself
        raise ConfigError(
            f"accelerate sees {accelerator.num_processes} of {process_count()} processes: start them with torchrun or "
            "accelerate launch, which set RANK, LOCAL_RANK and WORLD_SIZE"
        )
    return DDPEngine(accelerator, config.parallel.context) if several else Engine(accelerator)


@contextmanager
def _without_environment(several: bool) -> Iterator[None]:
    """Hide what accelerate would read from the environment in place of the run's settings.

    Args:
        several: leave what the launcher says of the processes.
    """
    hidden = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
    hidden |= {} if several else {name: os.environ[name] for name in LAUNCHER if name in os.environ}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
