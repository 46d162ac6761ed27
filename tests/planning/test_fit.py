"""What `--low-memory` picks, for machines from a workstation to a laptop."""

from __future__ import annotations

import pytest
import torch

from d4k.planning import Machine, choose, measure

FLUX = {"transformer": 24 * 10**9, "text_encoder_2": 9 * 10**9, "text_encoder": 10**8, "vae": 2 * 10**8}
TORCHAO, BOTH = frozenset({"torchao"}), frozenset({"torchao", "bitsandbytes"})


@pytest.mark.parametrize(
    ("machine", "picked"),
    [
        (Machine("cuda", 80, 64), "dtype=bfloat16"),
        (Machine("cuda", 32, 64), "dtype=bfloat16 offload=model"),
        (Machine("cuda", 24, 64, TORCHAO), "dtype=bfloat16 quantize=int8 offload=model"),
        (Machine("cuda", 24, 64), "dtype=bfloat16 offload=group"),
        (Machine("cuda", 14, 64, TORCHAO), "dtype=bfloat16 offload=group"),
        (Machine("cuda", 14, 64, BOTH), "dtype=bfloat16 quantize=nf4 offload=model"),
        (Machine("cuda", 8, 64, BOTH), "dtype=bfloat16 offload=group"),
        (Machine("cuda", 8, 16, BOTH), "dtype=bfloat16 offload=disk"),
        (Machine("cpu", 48, 48), "dtype=bfloat16"),
        (Machine("cpu", 30, 30, TORCHAO), "dtype=bfloat16 quantize=int8"),
        (Machine("cpu", 30, 30), "dtype=bfloat16 offload=disk"),
        (Machine("cpu", 16, 16, TORCHAO), "dtype=bfloat16 offload=disk"),
    ],
)
def test_first_rung_that_fits_is_picked(machine: Machine, picked: str) -> None:
    """FLUX.1 in bfloat16: a denoiser of 24 GB and a text encoder of 9."""
    assert " ".join(f"{choice.option}={choice.value}" for choice in choose(machine, FLUX)) == picked


def test_reasons_hold_the_figures() -> None:
    """What would be needed, and what there is."""
    first, second = choose(Machine("cuda", 32, 64), FLUX)
    assert first.reason == "halves the weights, to 33.3 GB; 32.0 GB are free on the cuda"
    assert second.reason.startswith("the parts fit one at a time")


def test_this_machine_is_measured() -> None:
    """A CPU has one memory, and torchao is a development dependency."""
    machine = measure(torch.device("cpu"))
    assert machine.device == "cpu"
    assert 0 < machine.device_gb == machine.memory_gb
    assert "torchao" in machine.packages
