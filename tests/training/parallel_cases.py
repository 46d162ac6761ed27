"""What two real processes do, one case after the other; `test_parallel.py` launches it once and looks at what it left.

python -m torch.distributed.run --nproc-per-node 2 tests/training/parallel_cases.py FOLDER
"""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from d4k.config import RunConfig, from_mapping
from d4k.training import train_from_config

STEPS, HALF = 3, 2
MODELS = ("tiny-sd3", "tiny-flux")
WAYS: dict[str, dict[str, Any]] = {"full": {}, "adapter": {"adapter": {"rank": 4}}}


def settings(folder: Path, name: str, model: str, way: str, **sections: Any) -> RunConfig:
    """A run of three steps of two pictures each, over both processes or, with `accumulation` 2, in one."""
    training = {"steps": STEPS, "save_every": HALF, "keep_last": 0, **sections.pop("training", {})}
    return from_mapping(
        RunConfig,
        {
            "model": model,
            "dataset": {"name": "folder", "options": {"path": str(folder / "photos")}},
            "output_dir": str(folder / name),
            "loss": {"name": "mse"},
            "data": {"width": 64, "height": 64, "cache": "off", "workers": 0},
            "optimizer": {"lr": 1e-3, "eps": 1e-3},
            "schedule": {"name": "linear"},
            "training": training,
            **WAYS[way],
            **sections,
        },
    )


def interrupt(run: Path) -> None:
    """Keep a finished run beside its folder, which becomes what it was after the checkpoint in its middle."""
    shutil.copytree(run, run.with_name(f"{run.name}-whole"))
    for name in ("model", "adapter", f"checkpoints/step-{STEPS:08d}"):
        shutil.rmtree(run / name, ignore_errors=True)


def both(folder: Path, strategy: str, model: str, way: str) -> None:
    """A run, and the same run resumed from its middle."""
    config = settings(folder, f"{strategy}-{model}-{way}", model, way, parallel={"strategy": strategy})
    train_from_config(config, device="cpu")
    if dist.get_rank() == 0:
        interrupt(Path(config.output_dir))
    dist.barrier()
    train_from_config(config, device="cpu", resume=True)


def main() -> None:
    """All cases."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo")
    if dist.get_rank():
        warnings.simplefilter("ignore")
    for strategy in sys.argv[2:] or ("ddp", "fsdp2"):
        for model in MODELS:
            for way in WAYS:
                both(folder, strategy, model, way)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
