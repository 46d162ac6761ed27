"""What two real processes do, one case after the other; `test_parallel.py` launches it once and looks at what it left.

python -m torch.distributed.run --nproc-per-node 2 tests/training/parallel_cases.py FOLDER
"""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from d4k.cli import main
from d4k.config import RunConfig, from_mapping, write_toml
from d4k.training import train_from_config
from d4k.upstream import patch_environment

STEPS, HALF = 3, 2
MODELS = ("tiny-sd3", "tiny-flux")
LOOKS = {"every": 2, "prompts": ["a cat", "a dog", "a bird"], "steps": 2, "holdout": 1, "sigmas": [0.3, 0.7]}
WAYS: dict[str, dict[str, Any]] = {
    "full": {"ema": {"decay": 0.5}},
    "adapter": {"adapter": {"rank": 4}},
}


def settings(folder: Path, name: str, model: str, way: str, **sections: Any) -> RunConfig:
    """A run of three steps of two pictures each, over both processes or, with `accumulation` 2, in one."""
    training = {"steps": STEPS, "save_every": HALF, "keep_last": 0, **sections.pop("training", {})}
    dataset = sections.pop("dataset", str(folder / "photos"))
    return from_mapping(
        RunConfig,
        {
            "model": model,
            "dataset": {"name": "folder", "options": {"path": dataset}},
            "output_dir": str(folder / name),
            "loss": {"name": "mse"},
            "data": {"width": 64, "height": 64, "cache": "off", "workers": 0},
            "optimizer": {"lr": 1e-3, "eps": 1e-3},
            "schedule": {"name": "linear"},
            "training": training,
            **WAYS[way],
            **({"validation": LOOKS} if (model, way) == (MODELS[0], "full") else {}),
            **sections,
        },
    )


def interrupt(run: Path) -> Path:
    """Take what a finished run left after the checkpoint in its middle to a folder beside it, `RUN-whole`."""
    whole = run.with_name(f"{run.name}-whole")
    (whole / "checkpoints").mkdir(parents=True)
    for name in ("model", "adapter", f"checkpoints/step-{STEPS:08d}"):
        if (run / name).exists():
            (run / name).rename(whole / name)
    shutil.copy(run / "losses.jsonl", whole)
    return whole


def both(folder: Path, strategy: str, model: str, way: str) -> None:
    """A run, and the same run resumed from its middle."""
    config = settings(folder, f"{strategy}-{model}-{way}", model, way, parallel={"strategy": strategy})
    train_from_config(config, device="cpu")
    dist.barrier()  # the other process may still be reading what the run left
    if dist.get_rank() == 0:
        interrupt(Path(config.output_dir))
    dist.barrier()
    train_from_config(config, device="cpu", resume=True)


def widened(folder: Path, strategy: str, way: str) -> None:
    """The rest of a run that one process has begun."""
    config = settings(folder, f"widened-{strategy}-{way}", MODELS[0], way, parallel={"strategy": strategy})
    train_from_config(config, device="cpu", resume=True)


def context(folder: Path, strategy: str, way: str) -> None:
    """Both processes compute the same two pictures a step, each half of the tokens."""
    sections = {"parallel": {"strategy": strategy, "context": 2}, "training": {"accumulation": 2}}
    train_from_config(settings(folder, f"context-{strategy}-{way}", MODELS[1], way, **sections), device="cpu")


def offloaded(folder: Path) -> None:
    """Weights, gradients and moments in CPU memory, which on the CPU is the same."""
    sections = {"parallel": {"strategy": "fsdp2", "offload": "all"}, "training": {"steps": 1, "precision": "bf16"}}
    train_from_config(settings(folder, "offloaded", MODELS[0], "adapter", **sections), device="cpu")


def broken_picture(folder: Path) -> None:
    """A picture that cannot be read comes to one process alone, the second."""
    config = settings(folder, "broken", MODELS[0], "adapter", dataset=str(folder / f"photos-{dist.get_rank()}"))
    train_from_config(config, device="cpu")


def full_disk(folder: Path) -> None:
    """The disk of the second process is full when the checkpoint at the end is written."""
    config = settings(folder, "full-disk", MODELS[0], "full", parallel={"strategy": "fsdp2"}, training={"steps": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if dist.get_rank():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        train_from_config(config, device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def command(folder: Path) -> None:
    """`d4k train`, where accelerate was told to use FSDP2, and once more with a mistake in the settings."""
    write_toml(settings(folder, "command", MODELS[0], "adapter", training={"steps": 1}), folder / "command.toml")
    with patch_environment(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2"):
        main.main(["train", str(folder / "command.toml"), "--device", "cpu"], standalone_mode=False)
    mistaken = ["train", str(folder / "command.toml"), "--set", "training.stps=1"]
    assert main.main(mistaken, standalone_mode=False) == 2


def said(folder: Path, case: Callable[[Path], None]) -> None:
    """Write down how a case ended in each process, and whether any had to wait long for the other."""
    began, words = time.monotonic(), "well"
    try:
        case(folder)
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
    ends: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ends, (words, time.monotonic() - began < 60))
    if dist.get_rank() == 0:
        (folder / f"{case.__name__}.json").write_text(json.dumps(ends))


def all_cases() -> None:
    """All cases."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    for strategy in ("ddp", "fsdp2"):
        for model in MODELS:
            for way in WAYS:
                both(folder, strategy, model, way)
    widened(folder, "ddp", "adapter")
    widened(folder, "fsdp2", "full")
    context(folder, "ddp", "adapter")
    context(folder, "fsdp2", "full")
    command(folder)
    for case in (offloaded, broken_picture, full_disk):
        said(folder, case)
    dist.destroy_process_group()


if __name__ == "__main__":
    all_cases()
