"""Settings of memory: what does not go together, activations on the CPU, adapters over fewer bits."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from d4k import Pipeline
from d4k.config import RunConfig, from_mapping
from d4k.errors import ConfigError
from d4k.training import train_from_config
from d4k.training.fine_tune import fine_tune
from d4k.training.memory import check_memory_settings, offloaded_activations

CPU, GPU = torch.device("cpu"), torch.device("cuda")
OFFLOADED = {"parallel": {"offload": "optimizer"}, "training": {"clip": 0}}


def config(**sections: Any) -> RunConfig:
    least = {"model": "tiny-sd3", "dataset": {"name": "folder"}, "output_dir": "run"}
    return from_mapping(RunConfig, {**least, **sections})


@pytest.mark.parametrize(
    ("sections", "processes", "strategy", "message"),
    [
        ({"parallel": {"offload": "optimizer"}}, 1, "single", "before they can be clipped: set training.clip = 0"),
        ({**OFFLOADED, "schedule": {"name": "cosine"}}, 1, "single", "schedule.name = 'cosine' could change"),
        (OFFLOADED, 2, "ddp", "before several processes have averaged them: choose parallel.strategy = 'fsdp2'"),
        (OFFLOADED, 2, "fsdp2", "whose weights are in shares: choose parallel.offload = 'all'"),
        ({**OFFLOADED, "optimizer": {"name": "muon"}}, 1, "single", "does not work with the optimizer 'muon'"),
        (
            {**OFFLOADED, "training": {"clip": 0, "precision": "fp16"}}, 1, "single",
            "before their scale is undone: set training.precision = 'bf16'",
        ),
        (
            {"optimizer": {"name": "schedule-free"}, "schedule": {"name": "linear"}}, 1, "single",
            "set optimizer.options.warmup_steps for a warm-up",
        ),
        ({"optimizer": {"name": "prodigy"}}, 1, "single", "is a factor of the learning rate that it finds itself"),
        ({"optimizer": {"name": "adamw-bf16"}}, 1, "single", "training.precision = 'no' computes in another"),
        ({"optimizer": {"name": "adamw-bf16"}, "adapter": {}}, 1, "single", "those of an adapter are few"),
        ({"optimizer": {"name": "adamw-8bit"}}, 2, "fsdp2", "whose checkpoints hold no tensors in 8 bits"),
        ({"optimizer": {"name": "prodigy", "lr": 1}}, 2, "fsdp2", "does not work with fsdp2"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(
    sections: dict[str, Any], processes: int, strategy: str, message: str
) -> None:
    """In one sentence each, before anything is loaded."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_memory_settings(config(**sections), processes, strategy, GPU)


@pytest.mark.parametrize(
    ("sections", "processes", "strategy"),
    [
        ({}, 1, "single"),
        (OFFLOADED, 1, "single"),
        ({"optimizer": {"name": "adamw-bf16"}, "training": {"precision": "bf16"}}, 2, "fsdp2"),
        ({"optimizer": {"name": "muon"}}, 2, "fsdp2"),
        ({"optimizer": {"name": "prodigy", "lr": 1}}, 2, "ddp"),
        ({"optimizer": {"name": "schedule-free"}, "training": {"activation_offload": True}}, 2, "fsdp2"),
    ],
)
def test_what_goes_together_is_not_refused(sections: dict[str, Any], processes: int, strategy: str) -> None:
    """The same settings in other company."""
    check_memory_settings(config(**sections), processes, strategy, GPU)


def test_on_a_cpu_there_is_nowhere_to_move_to() -> None:
    """State in CPU memory is refused, activations there are a warning."""
    with pytest.raises(ConfigError, match="this device is the CPU: leave it out"):
        check_memory_settings(config(**OFFLOADED), device=CPU)
    with pytest.warns(UserWarning, match=r"training.activation_offload has no effect on a CPU"):
        check_memory_settings(config(training={"activation_offload": True}), device=CPU)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_four_bits_without_their_package_are_refused(photos: Path, tmp_path: Path) -> None:
    """Before the model is read."""
    with pytest.raises(ConfigError, match=r"quantize='nf4' needs bitsandbytes: pip install bitsandbytes"):
        train_from_config(run(photos, tmp_path, adapter={"quantize": "nf4"}), device="cpu")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_on_the_cpu_change_no_bit(checkpointing: bool) -> None:
    """They are copied there, also with gradient checkpointing, and weights are not."""
    backbone = Pipeline.from_pretrained("tiny-sd3").backbone
    module = backbone.trainable.requires_grad_(True).train()
    if checkpointing:
        module.enable_gradient_checkpointing()  # type: ignore[operator]
    noise = torch.randn(1, backbone.latent.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    text, sigma = backbone.encode_text(["a cat"]), torch.full((1,), 0.5)
    found = {}
    for wanted in (False, True):
        with offloaded_activations(module, wanted):
            loss = backbone.velocity(noise, sigma, text).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        found[wanted] = [loss.detach(), *(p.grad for p in module.parameters() if p.grad is not None)]
        module.zero_grad(set_to_none=True)
    assert len(found[True]) == len(found[False]) > 10
    assert all(torch.equal(a, b) for a, b in zip(found[False], found[True], strict=True))


def test_activations_are_moved_and_weights_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without another device, what is moved is what is asked to be on the CPU."""
    moved: list[tuple[int, ...]] = []

    def move(tensor: torch.Tensor) -> torch.Tensor:
        moved.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(torch.Tensor, "cpu", move)
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 7))
    with offloaded_activations(module, True):
        result = module(torch.ones(2, 3, requires_grad=True)).square()
    assert moved == [(2, 3), (2, 5), (2, 7)]
    result.sum().backward()


def run(photos: Path, folder: Path, **sections: Any) -> RunConfig:
    """A run of tiny-sd3 on three pictures."""
    return from_mapping(
        RunConfig,
        {
            "model": "tiny-sd3",
            "dataset": {"name": "folder", "options": {"path": str(photos)}},
            "output_dir": str(folder / "run"),
            "loss": {"name": "mse"},
            "data": {"width": 64, "height": 64, "cache": "off", "workers": 0, "enlarge": True},
            "optimizer": {"lr": 1e-2},
            "training": {"steps": 10, "gradient_checkpointing": True},
            **sections,
        },
    )


@pytest.mark.filterwarnings("ignore")  # torchao of its own deprecations
@pytest.mark.parametrize("quantize", ["int8", "float8"])
def test_an_adapter_is_trained_over_fewer_bits(quantize: str, photos: Path, tmp_path: Path) -> None:
    """It learns, it is used over the same bits and over whole weights, and it is not merged into the former."""
    done = train_from_config(run(photos, tmp_path, adapter={"rank": 4, "quantize": quantize}), device="cpu")
    assert done.adapter is not None
    assert sum(done.losses[-3:]) < 0.8 * sum(done.losses[:3])
    for bits in (quantize, None):
        pipe = Pipeline.from_pretrained("tiny-sd3", quantize=bits)
        noise = torch.randn(1, pipe.backbone.latent.channels, 8, 8, generator=torch.Generator().manual_seed(0))
        step = noise, torch.full((1,), 0.5), pipe.backbone.encode_text(["a cat"])
        with torch.no_grad():
            before = pipe.backbone.velocity(*step)
            pipe.load_adapter(done.adapter)
            assert (pipe.backbone.velocity(*step) - before).abs().max() > 1e-3
        if bits is not None:
            with pytest.raises(ConfigError, match="cannot merge adapters into a model loaded with quantize="):
                pipe.merge_adapters()


def test_a_run_over_other_bits_than_the_model_has_is_refused(photos: Path, tmp_path: Path) -> None:
    """Both are named."""
    pipe = Pipeline.from_pretrained("tiny-sd3")
    with pytest.raises(ConfigError, match="adapter.quantize is int8, and the model was loaded with quantize=None"):
        fine_tune(pipe.backbone, pipe.loaded, run(photos, tmp_path, adapter={"quantize": "int8"}))
