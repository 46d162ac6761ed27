"""`d4k plan` against figures that were measured: published ones of GPUs, and memory of the CPU as the system sees it.

    python benchmarks/plan.py             # both tables, in Markdown; some minutes
    python benchmarks/plan.py tiny-sd3 768 training    # measure one computation in this process, in bytes

The published figures are of diffusers' own untiled decoding, which d4k does not use, and of what PyTorch had taken from
the GPU, which is more than what it held: its allocator keeps blocks that were freed. Both are modelled here.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attrs import define, field, frozen
from torch import Tensor

from d4k import Backbone, Placement, create
from d4k.adapters import resolve_model
from d4k.models import ModelRef
from d4k.planning import Generation, RunPlan, plan, shapes
from d4k.planning.plan import plan_training
from d4k.planning.trace import FusedAttention, Live, trace
from d4k.plugins import registry
from d4k.upstream import storage_key

GPU_GB = 80
INT32 = 2**31
SIZE = 768
"""Pixels a side of what is measured on the CPU: large enough that activations dominate."""


@frozen
class Published:
    """A figure of arXiv 2503.18352: one image of 4096x4096 pixels on an A100, bfloat16; None is out of memory."""

    name: str
    model: str
    downscale: int
    offload: bool
    gigabytes: float | None


PUBLISHED = (
    Published("SD3, F16", "sd3-medium", 16, False, 31.3),
    Published("SD3, F16, offload", "sd3-medium", 16, True, 16.1),
    Published("FLUX.1, F16", "flux-dev", 16, False, 50.4),
    Published("FLUX.1, F16, offload", "flux-dev", 16, True, 26.9),
    Published("SD3, F8", "sd3-medium", 8, False, None),
    Published("FLUX.1, F8", "flux-dev", 8, False, None),
)


@frozen
class Recipe:
    """A way to train at 4096x4096 on eight devices, as `examples/` has it or changed."""

    name: str
    model: str
    batch: int
    settings: dict[str, Any]


SHARED = {"strategy": "fsdp2"}
RECIPES = (
    Recipe("SD3, ddp, adamw-8bit (the recipe)", "sd3-medium", 8, {"optimizer": "adamw-8bit"}),
    Recipe("SD3, ddp, adamw", "sd3-medium", 8, {}),
    Recipe("SD3, fsdp2, adamw", "sd3-medium", 8, SHARED),
    Recipe("FLUX.1, ddp, adamw-8bit", "flux-dev", 4, {"optimizer": "adamw-8bit"}),
    Recipe("FLUX.1, fsdp2, adamw (the recipe)", "flux-dev", 4, SHARED),
    Recipe("FLUX.1, fsdp2, adamw, offload all", "flux-dev", 4, {**SHARED, "offload": "all"}),
)


def recipe_row(row: Recipe) -> str:
    """A line of the table of recipes."""
    run = RunPlan(row.batch, processes=8, checkpointing=True, **row.settings)
    found, _ = resolve_model(ModelRef(row.model, options={"downscale": 16}), configs=True)
    memory, _, _ = plan_training(found, run, 4096, 4096)
    needed = memory.peaks["gradient checkpointing"] / 1e9
    loading = memory.cpu.get("weights, before they are shared out", 0)
    held = max(loading, sum(memory.cpu.values()) - loading) / 1e9
    return f"| {row.name} | {needed:.1f} GB | {'yes' if needed <= GPU_GB else 'no'} | {held:.1f} GB |"


@define(eq=False)
class Block:
    """A piece of memory between its neighbours in one segment."""

    size: int
    free: bool = False
    before: Block | None = None
    after: Block | None = None


@define
class CachingAllocator:
    """PyTorch's CUDA allocator: best fit among freed blocks, which are split and joined and never given back.

    Source: PyTorch documentation, CUDA semantics, memory management; sizes from `c10/cuda/CUDACachingAllocator`.
    Requests of at most 1 MB, which it keeps apart, are left out.

    Attributes:
        reserved: bytes taken from the GPU.
    """

    reserved: int = 0
    freed: list[Block] = field(factory=list)

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes."""
        size = -(-size // 512) * 512
        fitting = [block for block in self.freed if block.size >= size]
        if fitting:
            block = min(fitting, key=lambda block: block.size)
            self.freed.remove(block)
        else:
            block = Block(20 * 2**20 if size < 10 * 2**20 else -(-size // 2**21) * 2**21)
            self.reserved += block.size
        block.free = False
        if block.size - size > 2**20:
            rest = Block(block.size - size, True, block, block.after)
            if rest.after is not None:
                rest.after.before = rest
            block.size, block.after = size, rest
            self.freed.append(rest)
        return block

    def give(self, block: Block) -> None:
        """Free a block, and join it with free neighbours."""
        for near in (block.before, block.after):
            if near is not None and near.free:
                self.freed.remove(near)
                first, second = (near, block) if near is block.before else (block, near)
                first.size += second.size
                first.after = second.after
                if first.after is not None:
                    first.after.before = first
                block = first
        block.free = True
        self.freed.append(block)


class Reserved(Live):  # type: ignore[no-untyped-call]
    """Follows storages, and asks the allocator for each.

    A convolution whose input or output has more than 2^31 elements gets its columns as well: up to cuDNN 9.3 PyTorch
    has only its own kernel for it, which writes them out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.allocator = CachingAllocator()
        self.blocks: dict[int, Block] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func is torch.ops.aten.convolution.default and max(args[0].numel(), result.numel()) > INT32:
            columns = args[1][0].numel() * result[0, 0].numel() * result.element_size()
            self.allocator.give(self.allocator.take(columns))
        return result

    def follow(self, storage: Any, size: int) -> None:
        """Take a block for it."""
        if size and storage_key(storage) not in self.seen:
            self.blocks[storage_key(storage)] = self.allocator.take(size)
        super().follow(storage, size)

    def forget(self, key: int) -> None:
        """Give its block back."""
        super().forget(key)
        if key in self.blocks:
            self.allocator.give(self.blocks.pop(key))


def reserved(*runs: Callable[[], object]) -> int:
    """Bytes taken from a GPU beside the weights for computations one after the other."""
    with Reserved() as live, FusedAttention(), torch.no_grad():
        for run in runs:
            run()
    total: int = live.allocator.reserved
    return total


def as_published(row: Published, size: int = 4096) -> float:
    """Gigabytes that the published computation takes, by the configuration of its model."""
    backbone = shapes(row.model, "bfloat16", downscale=row.downscale, positions="interpolate")
    parts = backbone.components
    weights = {name: sum(t.numel() * t.element_size() for t in chain(m.parameters(), m.buffers()))
               for name, m in parts.items()}  # fmt: skip
    side = size // row.downscale
    noise = torch.empty(1, backbone.latent.channels, side, side, dtype=torch.bfloat16, device="meta")
    text = backbone.encode_text([""], "")

    def step() -> Tensor:
        return backbone.velocity(noise, noise.new_empty(1), text, 5.0)

    def decode() -> Tensor:
        return decode_whole(parts["vae"], noise, row.downscale)

    if row.offload:
        alone = {"transformer": reserved(step), "vae": reserved(decode)}
        return max(weights[name] + alone.get(name, 0) for name in parts) / 1e9
    return (sum(weights.values()) + reserved(step, decode)) / 1e9


def in_d4k(row: Published, size: int = 4096) -> float:
    """Gigabytes that d4k has to hold for the same."""
    ref = ModelRef(row.model, options={"downscale": row.downscale, "positions": "interpolate"})
    found = plan(ref, Generation(size, size))
    return found.generation.peaks["offload model" if row.offload else "all on the device"] / 1e9


def decode_whole(vae: Any, latent: Tensor, downscale: int) -> Tensor:
    """Decode as diffusers does, untiled; for F16 enlarged just before the last convolution."""
    factor = downscale // 2 ** (len(vae.config.block_out_channels) - 1)
    handle = vae.decoder.conv_out.register_forward_pre_hook(
        lambda _, inputs: F.interpolate(inputs[0], scale_factor=float(factor), mode="nearest") if factor > 1 else None
    )
    pixels: Tensor = vae.decode(latent, return_dict=False)[0]
    handle.remove()
    return pixels


def computation(backbone: Backbone, what: str, size: int) -> Callable[[], Tensor]:
    """A sampling step with guidance, or the forward pass of a training step, in float32."""
    spec, device = backbone.latent, next(backbone.trainable.parameters()).device
    noise = torch.zeros(1, spec.channels, size // spec.downscale, size // spec.downscale, device=device)
    sigma = torch.full((1,), 0.5, device=device)
    backbone.trainable.requires_grad_(what != "sampling").train(what != "sampling")
    if what == "checkpointed":
        backbone.trainable.enable_gradient_checkpointing()  # type: ignore[operator]
    if what == "sampling":
        text = backbone.encode_text([""], "")
        return lambda: backbone.velocity(noise, sigma, text, 7.0)
    text = backbone.encode_text([""])
    return lambda: backbone.velocity(noise, sigma, text)


def planned_bytes(model: str, size: int, what: str) -> int:
    """What `d4k.planning.trace` says of it."""
    backbone = shapes(model, "float32")
    return trace(computation(backbone, what, size)).peak


def measured_bytes(model: str, size: int, what: str) -> int:
    """What the system says of it: the growth of resident memory, in a fresh process that gives freed memory back."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, __file__, model, str(size), what]
    return int(subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(model: str, size: int, what: str) -> int:
    """Run it in this process, once small to have everything loaded, and then in earnest. Linux only."""
    entry = registry().get("checkpoint", model)
    backbone = create("backbone", entry.backbone, source=entry.target)
    backbone.load(Placement(torch.device("cpu"), torch.float32))
    for pixels in (128, size):
        run = computation(backbone, what, pixels)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest resident size so far
        before = _status("VmRSS")
        result = run()
        if result.requires_grad:
            torch.autograd.backward(result.square().mean())
        del result
        grown = _status("VmHWM") - before
        backbone.trainable.zero_grad(set_to_none=True)
    return grown


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def main() -> None:
    """Print both tables."""
    print("| 4096x4096, bfloat16 | A100, published | planned | difference | in d4k |\n" + "| --- " * 5 + "|")
    for row in PUBLISHED:
        planned = as_published(row)
        published = "out of memory" if row.gigabytes is None else f"{row.gigabytes} GB"
        verdict = "out of 80 GB" if planned > GPU_GB else "fits"
        difference = verdict if row.gigabytes is None else f"{planned / row.gigabytes - 1:+.1%}"
        print(f"| {row.name} | {published} | {planned:.1f} GB | {difference} | {in_d4k(row):.1f} GB |")
    print("\n| 8 devices, 4096x4096 | each device | fits 80 GB | CPU memory of each process |\n" + "| --- " * 4 + "|")
    for recipe in RECIPES:
        print(recipe_row(recipe))
    print("\n| float32 on a CPU | measured | planned | difference |\n| --- | --- | --- | --- |")
    for model in ("tiny-sd3", "tiny-flux"):
        for what in ("sampling", "training", "checkpointed"):
            found, expected = measured_bytes(model, SIZE, what), planned_bytes(model, SIZE, what)
            difference = f"{expected / found - 1:+.1%}"
            print(f"| {model}, {what} | {found / 1e6:.0f} MB | {expected / 1e6:.0f} MB | {difference} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with torch.no_grad() if sys.argv[3] == "sampling" else torch.enable_grad():
            print(measure(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    else:
        main()
