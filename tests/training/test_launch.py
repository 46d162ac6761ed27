"""Which launches and settings are refused before anything is loaded, and how a run is shared otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist

from d4k.errors import ConfigError
from d4k.processes import Processes
from d4k.training import check_launch
from d4k.training.launch import chosen_strategy, joined

Config = Callable[..., Any]
FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
TWO = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("environment", "asked", "chosen"),
    [
        ({}, "auto", "single"),
        ({}, "ddp", "single"),
        ({}, "fsdp2", "fsdp2"),
        (TWO, "auto", "ddp"),
        (TWO, "fsdp2", "fsdp2"),
        ({**TWO, **FSDP2}, "auto", "fsdp2"),
        ({**TWO, "ACCELERATE_USE_FSDP": "false"}, "auto", "ddp"),
    ],
)
def test_settings_and_launch_choose_the_strategy(
    monkeypatch: pytest.MonkeyPatch, run_config: Config, environment: dict[str, str], asked: str, chosen: str
) -> None:
    """`auto` is DDP for several processes, and FSDP2 where accelerate was told so."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = run_config(parallel={"strategy": asked})
    check_launch(config)
    assert chosen_strategy(config) == chosen


@pytest.mark.parametrize(
    ("environment", "sections", "words"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "does not work with DeepSpeed: use DDP"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, {}, "does not work with Megatron-LM"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, {}, "tensor parallelism"),
        ({"ACCELERATE_USE_FSDP": "true"}, {}, "does not work with FSDP1"),
        ({**TWO, **FSDP2}, {"parallel": {"strategy": "ddp"}}, "accelerate was told to use FSDP2"),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, {}, "started 8 processes that cannot find each other"),
        (TWO, {"parallel": {"offload": "all"}}, "offload = 'all' needs parallel.strategy = 'fsdp2'"),
        (TWO, {"parallel": {"context": 3}}, "context is 3, which does not divide the 2 processes"),
        ({}, {"parallel": {"strategy": "fsdp2"}, "training": {"precision": "fp16"}}, "'fp16' does not work with fsdp2"),
        ({}, {"parallel": {"strategy": "fsdp2"}, "adapter": {"quantize": "int8"}}, "'int8' does not work with fsdp2"),
    ],
)
def test_what_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    run_config: Config,
    environment: dict[str, str],
    sections: dict[str, Any],
    words: str,
) -> None:
    """In a sentence that says what to choose."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=re.escape(words)):
        check_launch(run_config(**sections))


def test_another_precision_of_accelerate_is_named(monkeypatch: pytest.MonkeyPatch, run_config: Config) -> None:
    """The run's own counts, and a setting that is ignored warns."""
    for name, value in {**TWO, "ACCELERATE_MIXED_PRECISION": "bf16"}.items():
        monkeypatch.setenv(name, value)
    with pytest.warns(UserWarning, match="mixed_precision = 'bf16', which is ignored: training.precision = 'no'"):
        check_launch(run_config())


def test_a_group_lasts_as_long_as_its_block(run_config: Config) -> None:
    """FSDP2 in one process needs one, too; a block in a block uses that of the outer."""
    config, cpu = run_config(parallel={"strategy": "fsdp2"}), torch.device("cpu")
    with joined(config, cpu), joined(config, cpu):
        assert dist.is_initialized()
        assert Processes().gather("here") == ["here"]
    assert not dist.is_initialized()
