"""This machine: which device computes, and how much memory it has free."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from d4k.errors import ConfigError
from d4k.upstream import get_cpu_distributed_information

__all__ = ["choose_device", "free_bytes"]

CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> float:
    """Bytes that can still be allocated on a device: by torch on a GPU, by this process on the CPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(float(psutil.virtual_memory().available), _group_bytes())


def _group_bytes() -> float:
    """What the control group of a container or a cluster job leaves; infinite where there is none."""
    try:
        most = (CONTROL_GROUP / "memory.max").read_text().strip()
        if most == "max":
            return float("inf")
        used = int((CONTROL_GROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return float("inf")
    return int(most) - used + int(stat.get("inactive_file", 0))  # cached files make room when it is needed


def choose_device(name: str | None = None) -> torch.device:
    """The named device, or the first of CUDA, MPS and CPU there is; of several GPUs the one of this process.

    Raises:
        ConfigError: there is no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    process = get_cpu_distributed_information()  # of any launcher, not of CPUs only
    name += f":{process.local_rank}" if name == "cuda" and process.world_size > 1 else ""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta":
            raise RuntimeError("it holds no values")
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device '{name}' is not available here; try 'cuda', 'mps' or 'cpu'") from error
    return device
