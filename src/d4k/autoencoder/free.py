"""How much memory a device has free."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

__all__ = ["free_bytes"]

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
