"""What `--low-memory` chooses: the fastest rungs of the ladder on which a model fits into a machine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import torch
from attrs import frozen

from d4k.machine import free_bytes
from d4k.models import DENOISER, QUANTIZERS

__all__ = ["Choice", "Machine", "choose", "measure"]

GB = 1e9
BFLOAT16 = 2  # bytes
WORK_GB = 4.0
"""Set aside for activations and the autoencoder; a picture of 4096x4096 at stride 16 takes about that."""


@frozen
class Machine:
    """What there is to compute with.

    Args:
        device: "cuda", "mps" or "cpu".
        device_gb: free memory of the accelerator; of a CPU, the same as `memory_gb`.
        memory_gb: free main memory.
        packages: of those that quantise, the ones that are installed.
    """

    device: str
    device_gb: float
    memory_gb: float
    packages: frozenset[str] = frozenset()


@frozen
class Choice:
    """An option of `Pipeline.from_pretrained`, and why it was chosen."""

    option: str
    value: str
    reason: str


def measure(device: torch.device) -> Machine:
    """What this machine has free now."""
    memory, free = free_bytes(torch.device("cpu")) / GB, free_bytes(device) / GB
    free = min(free, memory) if device.type == "mps" else free  # it is the same memory
    packages = {way.package for way in QUANTIZERS.values()}
    return Machine(device.type, free, memory, frozenset(filter(find_spec, packages)))


def choose(machine: Machine, parts: Mapping[str, int]) -> list[Choice]:
    """Choose for a machine and a model.

    Args:
        machine: see `measure`.
        parts: bytes of the parts of the model in bfloat16, see `d4k.weights.part_bytes`.

    Returns:
        Options in the order they were chosen; what came first is cheapest.

    >>> [c.value for c in choose(Machine("cuda", 80, 64), {"transformer": 24 * 10**9, "text_encoder_2": 10 * 10**9})]
    ['bfloat16']
    """
    total = sum(parts.values()) / GB
    has = f"{machine.device_gb:.1f} GB are free on the {machine.device}"
    chosen = [Choice("dtype", "bfloat16", f"halves the weights, to {total:.1f} GB; {has}")]
    if total + WORK_GB <= machine.device_gb:
        return chosen
    return chosen + (_for_cpu if machine.device == "cpu" else _for_accelerator)(machine, parts)


def _for_cpu(machine: Machine, parts: Mapping[str, int]) -> list[Choice]:
    total, denoiser = sum(parts.values()) / GB, parts.get(DENOISER, 0) / GB
    saved = denoiser * (1 - QUANTIZERS["int8"].bytes_each / BFLOAT16)
    if QUANTIZERS["int8"].package in machine.packages and total - saved + WORK_GB <= machine.memory_gb:
        return [Choice("quantize", "int8", f"{total:.1f} GB of weights do not fit; halves those of the denoiser")]
    return [
        Choice("offload", "disk", f"{total:.1f} GB of weights do not fit; reads them layer by layer, which is slow")
    ]


def _for_accelerator(machine: Machine, parts: Mapping[str, int]) -> list[Choice]:
    """One part at a time on the device; then a smaller denoiser; then layer by layer."""
    total, denoiser = sum(parts.values()) / GB, parts.get(DENOISER, 0) / GB
    others = max((size / GB for name, size in parts.items() if name != DENOISER), default=0.0)
    room = machine.device_gb - WORK_GB
    if total > machine.memory_gb:
        return [Choice("offload", "disk", f"{total:.1f} GB of weights fit neither on the device nor in main memory")]
    if max(denoiser, others) <= room:
        return [Choice("offload", "model", "the parts fit one at a time; each waits in main memory for its turn")]
    for name in ("int8", "nf4"):
        left = denoiser * QUANTIZERS[name].bytes_each / BFLOAT16
        if QUANTIZERS[name].package in machine.packages and max(left, others) <= room:
            return [
                Choice("quantize", name, f"a denoiser of {denoiser:.1f} GB does not fit; makes it {left:.1f} GB"),
                Choice("offload", "model", "the parts fit one at a time; each waits in main memory for its turn"),
            ]
    return [Choice("offload", "group", "no part fits as a whole; layers come from main memory one by one")]
