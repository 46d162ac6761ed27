"""Memory and time of the banded autoencoder, beside diffusers' own untiled and tiled runs.

The autoencoder has the shape of Stable Diffusion 3's (channels 128, 256, 512, 512; 84 million random weights). Every
case runs in a fresh process, which reads its own peak from the operating system; the peak counts from after the
weights are loaded. Each is compared with the untiled run of the same task: peak, time, and the largest difference
between the results.

    python benchmarks/autoencoder.py [--size 1024] [--dtype float32] [--only decode-f8] [--threads N]

`--size` is that of the F8 pictures; F16 pictures are twice as large. 2048 takes about an hour on two cores and 20 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from d4k.autoencoder import decode, encode, footprint

TASKS = ("decode-f8", "encode-f8", "decode-f16", "encode-f16")
SHARES = {"banded": 0.43, "banded, frugal": 0.285}  # of the untiled run's peak, as memory_gb; below the targets


def make_vae(dtype: torch.dtype) -> Any:
    """An autoencoder of SD3's shape with random weights."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=16,
        sample_size=1024,  # diffusers' tiles are as large
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    return vae.eval().to(dtype)


def peer(vae: Any, task: str, values: Tensor) -> Tensor:
    """Diffusers' own run; for F16 with the stride and the enlargement that define it."""
    double = task.endswith("f16")
    if task.startswith("encode"):
        vae.encoder.conv_in.stride = (2, 2) if double else (1, 1)
        return vae.encode(values).latent_dist.mode()  # type: ignore[no-any-return]
    if double:
        vae.decoder.conv_out.register_forward_pre_hook(lambda _, given: F.interpolate(given[0], scale_factor=2.0))
    return vae.decode(values).sample  # type: ignore[no-any-return]


def run(task: str, way: str, size: int, dtype: torch.dtype, memory_gb: float | None) -> tuple[Tensor, dict[str, float]]:
    """The result of one case in this process; its seconds, processor seconds and peak bytes."""
    vae = make_vae(dtype)
    downscale = 16 if task.endswith("f16") else 8
    side = size if downscale == 8 else 2 * size
    shape = (1, 3, side, side) if task.startswith("encode") else (1, 16, side // downscale, side // downscale)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours: Callable[..., Tensor] = encode if task.startswith("encode") else decode
    if way == "tiled":
        vae.enable_tiling()
    before, start, used = psutil.Process().memory_info().rss, time.perf_counter(), time.process_time()
    with torch.no_grad():
        if way in SHARES:
            result = ours(vae, values, downscale=downscale, memory_gb=memory_gb)
        else:
            result = peer(vae, task, values)
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    return result, {"seconds": seconds, "cpu": cpu, "peak": peak_bytes() - before}


def peak_bytes() -> int:
    """The most memory this process has held, from the operating system."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux begins with the memory of the parent process
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fresh(options: argparse.Namespace, task: str, way: str, memory_gb: float | None, out: Path) -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", task, way, str(memory_gb or 0), str(out)]
    command += ["--size", str(options.size), "--dtype", options.dtype, "--threads", str(options.threads)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=plain)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(options: argparse.Namespace, task: str, folder: Path) -> None:
    """Print the rows of one task."""
    whole = fresh(options, task, "untiled", None, folder / "untiled.pt")
    reference = torch.load(folder / "untiled.pt").float()
    print(f"\n{task}  untiled  {whole['peak'] / 1e9:.2f} GB  {whole['seconds']:.1f} s", flush=True)
    ways = list(SHARES) + ([] if task.endswith("f16") else ["tiled"])
    for way in ways:
        limit = SHARES[way] * whole["peak"] / 1e9 if way in SHARES else None
        found = fresh(options, task, way, limit, folder / "case.pt")
        off = (torch.load(folder / "case.pt").float() - reference).abs().max().item()
        asked = f"  memory_gb={limit:.2f}" if limit else ""
        peak, seconds, cpu = (found[figure] / whole[figure] for figure in ("peak", "seconds", "cpu"))
        print(
            f"{task}  {way}{asked}  peak {found['peak'] / 1e9:.2f} GB = {peak:.3f}  time {seconds:.3f} "
            f"(processor time {cpu:.3f})  largest difference {off:.1e}",
            flush=True,
        )


def main() -> None:
    """Compare on each task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="side of the F8 pictures in pixels")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--only", action="append", choices=TASKS, help="repeat for several")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    if options.case:
        task, way, memory_gb, out = options.case
        result, figures = run(task, way, options.size, dtype, float(memory_gb) or None)
        torch.save(result, out)
        print(json.dumps(figures))
        return
    print(f"diffusers {version('diffusers')}, torch {torch.__version__}, {options.threads} threads, {options.dtype}")
    vae = make_vae(dtype)
    for downscale in (8, 16):
        side = options.size * downscale // 8
        least = [footprint(vae, side, side, downscale=downscale, memory_gb=0, encoding=e) / 1e9 for e in (False, True)]
        print(f"F{downscale} at {side}x{side}: decoding takes at least {least[0]:.2f} GB, encoding {least[1]:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        for task in options.only or TASKS:
            compare(options, task, Path(folder))


if __name__ == "__main__":
    main()
