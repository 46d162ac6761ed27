"""`d4k plan` against the memory of two processes that share a training step, on the CPU, as the system sees it.

    python benchmarks/parallel_memory.py             # the table, in Markdown; some minutes

Each case runs under `torch.distributed.run` with gloo, in fresh processes that give freed memory back.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from d4k import Placement, create
from d4k.config import OptimizerSettings
from d4k.planning import RunPlan, shapes
from d4k.planning.generation import Area
from d4k.planning.training import prepare, step_peak
from d4k.plugins import registry
from d4k.training.optimizers import make_optimizer

SIZE = 768
PROCESSES = 2
CASES = [(model, strategy) for model in ("tiny-sd3", "tiny-flux") for strategy in ("ddp", "fsdp2")]


def planned(model: str, strategy: str) -> int:
    """Bytes that each process holds beside text encoders and autoencoder."""
    run, backbone = RunPlan(precision="no", processes=PROCESSES, strategy=strategy), shapes(model, "float32")
    prepare(backbone, run)
    return step_peak(backbone, Area(SIZE, SIZE, 1), run)


def measured(model: str, strategy: str) -> int:
    """The most of the processes: growth of resident memory in a second step, and what was there before it."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(PROCESSES), "--standalone"]
    done = subprocess.run(
        [*words, __file__, model, strategy], env=environment, check=True, capture_output=True, text=True
    )
    return max(int(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("bytes"))


def measure(model: str, strategy: str) -> int:
    """Two steps in this process; the first makes the optimizer's state and what the exchange needs."""
    entry = registry().get("checkpoint", model)
    backbone = create("backbone", entry.backbone, source=entry.target)
    backbone.load(Placement(torch.device("cpu"), torch.float32))
    text = backbone.encode_text([""])
    module = backbone.trainable.requires_grad_(True).train()
    module.enable_gradient_checkpointing()
    if strategy == "fsdp2":
        share_out(module)
    held = sum(_local(parameter) for parameter in module.parameters())
    optimizer = make_optimizer(OptimizerSettings(lr=1e-6), module)
    backbone.trainable = module
    if strategy == "ddp":
        backbone.trainable = DistributedDataParallel(module, gradient_as_bucket_view=True)
    spec = backbone.latent
    for size in (128, SIZE):
        noise = torch.zeros(1, spec.channels, size // spec.downscale, size // spec.downscale)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        backbone.velocity(noise, torch.full((1,), 0.5), text).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    grown = _status("VmHWM") - before
    state = sum(_local(value) for values in optimizer.state.values() for value in values.values())
    buckets = held if strategy == "ddp" else 0  # there since the first step
    return held + state + buckets + grown


def share_out(module: Any) -> None:
    """As a run does."""
    from torch.distributed.fsdp import fully_shard

    from d4k.upstream import block_names

    for block in [part for part in module.modules() if type(part).__name__ in block_names(module)]:
        fully_shard(block)
    fully_shard(module)


def _local(tensor: Any) -> int:
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return int(own.numel() * own.element_size())


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def main() -> None:
    """Print the table."""
    print("| 2 processes, float32 on a CPU | measured | planned | difference |\n| --- | --- | --- | --- |")
    for model, strategy in CASES:
        found, expected = measured(model, strategy), planned(model, strategy)
        print(f"| {model}, {strategy} | {found / 1e6:.0f} MB | {expected / 1e6:.0f} MB | {expected / found - 1:+.1%} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        dist.init_process_group("gloo")
        print("bytes", measure(sys.argv[1], sys.argv[2]))
        dist.destroy_process_group()
    else:
        main()
