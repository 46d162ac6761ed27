"""Two real processes (gloo, on the CPU) train what one trains; accelerate launches them once, for all tests."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from d4k import Pipeline
from d4k.training import read_losses, train_from_config
from d4k.training.held_out import read_held_out_losses

SCRIPT = Path(__file__).with_name("parallel_cases.py")
spec = importlib.util.spec_from_file_location("parallel_cases", SCRIPT)
assert spec is not None
assert spec.loader is not None
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)

RUNS = [(strategy, model, way) for strategy in ("ddp", "fsdp2") for model in cases.MODELS for way in cases.WAYS]
NEAR = 1e-5


def photos(folder: Path, broken: tuple[int, ...] = ()) -> None:
    """Five captioned pictures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((80, 72), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}")
        if i in broken:
            (folder / f"{i}.png").write_bytes((folder / f"{i}.png").read_bytes()[:-3000])  # its header is whole


def alone(folder: Path, name: str, model: str, way: str, **more: Any) -> Path:
    """The run of one process, with a global batch as large."""
    config = cases.settings(folder, name, model, way, training={"accumulation": 2})
    return train_from_config(config, device="cpu", **more).output_dir


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process, `one-MODEL-WAY`, and all that the two processes left."""
    folder = tmp_path_factory.mktemp("parallel")
    photos(folder / "photos")
    photos(folder / "photos-0")
    photos(folder / "photos-1", broken=(0, 1, 2, 3, 4))
    for model in cases.MODELS:
        for way in cases.WAYS:
            alone(folder, f"one-{model}-{way}", model, way)
    for strategy, way in (("ddp", "adapter"), ("fsdp2", "full")):
        target = folder / f"widened-{strategy}-{way}"
        shutil.copytree(folder / f"one-{cases.MODELS[0]}-{way}", target)
        cases.interrupt(target)
    arguments = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --main_process_port 0"
    launch = [sys.executable, *arguments.split(), str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*launch, str(folder)], capture_output=True, text=True, env=environment, timeout=540)
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stderr + done.stdout)
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    """What a run saved: the denoiser, or the adapter."""
    files = [*run.glob("model/transformer/*.safetensors"), *run.glob("adapter/*.safetensors")]
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert tensors
    return tensors


def rows(run: Path, *names: str) -> list[list[float]]:
    return [[row[name] for name in names] for row in read_losses(run)]


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(("strategy", "model", "way"), RUNS)
def test_two_processes_train_what_one_trains(folder: Path, strategy: str, model: str, way: str) -> None:
    """Losses and saved weights are those of one process that accumulates as many pictures, and weights have changed."""
    one, two = folder / f"one-{model}-{way}", folder / f"{strategy}-{model}-{way}-whole"
    assert np.abs(np.subtract(rows(one, "loss"), rows(two, "loss"))).max() < NEAR
    np.testing.assert_allclose(rows(two, "gradient_norm", "lr"), rows(one, "gradient_norm", "lr"), rtol=NEAR)
    assert distance(weights(one), weights(two)) < NEAR
    if way == "full":
        began = Pipeline.from_pretrained(model, device="cpu").backbone.trainable.state_dict()
        assert distance(weights(one), {name: tensor for name, tensor in began.items() if name in weights(one)}) > 1e-4
    else:
        assert any(tensor.abs().max() > 1e-4 for name, tensor in weights(two).items() if "lora_B" in name)


@pytest.mark.parametrize(("strategy", "model", "way"), RUNS)
def test_a_run_of_two_processes_resumes_bit_by_bit(folder: Path, strategy: str, model: str, way: str) -> None:
    """Resumed from the checkpoint in its middle it ends in the same weights, losses and gradient norms."""
    resumed = folder / f"{strategy}-{model}-{way}"
    whole = resumed.with_name(f"{resumed.name}-whole")
    assert all(torch.equal(tensor, weights(resumed)[name]) for name, tensor in weights(whole).items())
    figures = ("step", "loss", "gradient_norm", "lr")
    assert rows(resumed, *figures) == rows(whole, *figures)
    assert len(rows(whole, "step")) == cases.STEPS
    assert len(list((resumed / "tensorboard").iterdir())) == 2  # one file a part of the run, of one process


@pytest.mark.parametrize(("strategy", "way"), [("ddp", "full"), ("fsdp2", "full"), ("fsdp2", "adapter")])
def test_one_process_goes_on_with_a_run_of_two(folder: Path, strategy: str, way: str) -> None:
    """With twice the accumulation: the same steps, and a line that says that the last digits may differ."""
    model = cases.MODELS[0]
    source, name = folder / f"{strategy}-{model}-{way}", f"narrowed-{strategy}-{way}"
    later = ("model", "adapter", f"step-{cases.STEPS:08d}")
    shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*later))
    with pytest.warns(UserWarning, match=f"was shared by 2 processes, {strategy}.*goes on with 1 process, accum"):
        narrowed = alone(folder, name, model, way, resume=True)
    assert distance(weights(source), weights(narrowed)) < NEAR
    assert np.abs(np.subtract(rows(source, "loss"), rows(narrowed, "loss"))).max() < NEAR


@pytest.mark.parametrize(("strategy", "way"), [("ddp", "adapter"), ("fsdp2", "full")])
def test_two_processes_go_on_with_a_run_of_one(folder: Path, strategy: str, way: str) -> None:
    """Weights and moments that one process wrote whole are shared out; the new checkpoint says by whom."""
    widened, one = folder / f"widened-{strategy}-{way}", folder / f"one-{cases.MODELS[0]}-{way}"
    assert distance(weights(widened), weights(one)) < NEAR
    assert np.abs(np.subtract(rows(widened, "loss"), rows(one, "loss"))).max() < NEAR
    record = json.loads((widened / "checkpoints" / f"step-{cases.STEPS:08d}" / "state.json").read_text())
    assert (record["processes"], record["strategy"], record["accumulation"]) == (2, strategy, 1)


@pytest.mark.parametrize(("strategy", "way"), [("ddp", "adapter"), ("fsdp2", "full")])
def test_two_processes_share_the_tokens_of_a_picture(folder: Path, strategy: str, way: str) -> None:
    """Context parallelism: losses, gradients and weights are those of one process that sees the pictures whole."""
    one, two = folder / f"one-tiny-flux-{way}", folder / f"context-{strategy}-{way}"
    assert np.abs(np.subtract(rows(one, "loss"), rows(two, "loss"))).max() < NEAR
    np.testing.assert_allclose(rows(two, "gradient_norm"), rows(one, "gradient_norm"), rtol=NEAR)
    assert distance(weights(one), weights(two)) < NEAR


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_see_in_a_validation_what_one_sees(folder: Path, strategy: str) -> None:
    """The same pictures and held-out losses, of the average; the run that was resumed has them once."""
    one, two = (folder / f"{name}-{cases.MODELS[0]}-full" / "validation" for name in ("one", strategy))
    pictures = sorted(path.relative_to(one) for path in one.glob("step-*/*.png"))
    assert len(pictures) == 3 * 3
    for name in pictures:
        seen, expected = (np.asarray(Image.open(each / name)).astype(int) for each in (two, one))
        assert np.abs(seen - expected).max() <= 2
    found, expected = (read_held_out_losses(each.parent) for each in (two, one))
    assert [row["step"] for row in found] == [0, 2, 3]
    assert np.abs(np.subtract([row["loss"] for row in found], [row["loss"] for row in expected])).max() < NEAR
    assert (two / "pictures.png").is_file()


def ends(folder: Path, case: Callable[[Path], None]) -> tuple[str, str]:
    (first, fast), (second, also) = json.loads((folder / f"{case.__name__}.json").read_text())
    assert fast
    assert also
    return first, second


def test_offload_of_all_trains(folder: Path) -> None:
    """Products in bfloat16 over float32 shares in CPU memory."""
    assert ends(folder, cases.offloaded) == ("well", "well")
    assert np.isfinite(rows(folder / "offloaded", "loss")).all()


def test_a_picture_that_one_process_cannot_read_ends_both(folder: Path) -> None:
    """The one says which picture, the other that it was another; nobody waits for a minute."""
    first, second = ends(folder, cases.broken_picture)
    assert second.startswith("DataError: ")
    assert first.startswith("StoppedElsewhereError: process 1 stopped: DataError: ")


def test_a_disk_that_is_full_for_one_process_leaves_no_checkpoint(folder: Path) -> None:
    """Both end in an error; of the checkpoint that the other could write nothing is left."""
    first, second = ends(folder, cases.full_disk)
    assert first.startswith("OutputError: cannot write")
    assert "step-00000001: is the disk full?" in first
    assert second.startswith("StoppedElsewhereError: process 0 stopped: OSError: is the disk full?")
    assert list((folder / "full-disk" / "checkpoints").iterdir()) == []


def test_the_command_trains_with_what_accelerate_was_told(folder: Path) -> None:
    """FSDP2 where the settings leave it open; one process reports."""
    record = json.loads((folder / "command" / "checkpoints" / "step-00000001" / "state.json").read_text())
    assert (record["processes"], record["strategy"]) == (2, "fsdp2")
    assert (folder / "said.txt").read_text().count("1 step done; last loss") == 1


def test_what_both_would_say_is_said_once(folder: Path) -> None:
    """One bar for each run; the two warnings of resuming in another launch, once each; a mistake, once."""
    words = (folder / "said.txt").read_text()
    assert words.count("unknown key 'training.stps'") == 1
    assert words.count("goes on with 2 processes, ddp") == 1
    assert words.count("goes on with 2 processes, fsdp2") == 1
