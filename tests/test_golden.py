"""Losses and pictures of both tiny models, kept as files: what should not change them must leave them bit-identical.

A file of another machine or another torch is compared within a tolerance, since kernels round differently there. A
change that is meant to alter results regenerates the files in the same commit and says why:

    D4K_GOLDEN=write nox -s tests -- tests/test_golden.py
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d4k import Pipeline
from d4k.files import write_json

FOLDER = Path(__file__).parent / "golden"
CASES = [(model, way) for model in ("tiny-sd3", "tiny-flux") for way in ("full", "adapter")]
WRITING = os.environ.get("D4K_GOLDEN") == "write"


def machine() -> dict[str, str]:
    """What decides the last bits of a result."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else [])
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


def kept(name: str, found: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """What the file of a case holds, and whether it was made on a machine like this one."""
    file = FOLDER / f"{name}.json"
    if WRITING:
        write_json(file, {"machine": machine(), **found})
    stored = json.loads(file.read_text())
    return stored, stored["machine"] == machine()


@pytest.mark.parametrize("cache", ["off", "auto"])
@pytest.mark.parametrize(("model", "way"), CASES)
def test_five_steps_of_training_give_the_kept_losses(tmp_path: Path, model: str, way: str, cache: str) -> None:
    """Encoded at every step, and read from a cache that keeps bfloat16."""
    pipe = Pipeline.from_pretrained(model, device="cpu")
    settings: dict[str, Any] = {"adapter_rank": 4} if way == "adapter" else {}
    run = pipe.train(
        dataset="sample-photos",
        loss="wavelet",
        output_dir=tmp_path / "run",
        steps=5,
        width=128,
        height=128,
        batch_size=2,
        lr=1e-3,
        seed=3,
        cache=cache,
        **settings,
    )
    name = f"losses-{model}-{way}" + ("-cached" if cache == "auto" else "")
    stored, same = kept(name, {"losses": list(run.losses)})

    assert len(run.losses) == 5
    assert list(run.losses) == (stored["losses"] if same else pytest.approx(stored["losses"], rel=1e-3))


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_a_picture_is_the_kept_one(model: str) -> None:
    pipe = Pipeline.from_pretrained(model, device="cpu")
    picture = pipe.generate("a tabby cat", width=192, height=128, steps=4, guidance=4.0, seed=5)[0]
    file = FOLDER / f"picture-{model}.png"
    if WRITING:
        picture.save(file)
    _, same = kept(f"picture-{model}", {})
    difference = np.abs(np.asarray(picture, dtype=int) - np.asarray(Image.open(file), dtype=int)).max()

    assert difference <= (0 if same else 2)
