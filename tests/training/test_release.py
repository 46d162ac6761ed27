"""Text encoders and autoencoder are out of memory in the block, and afterwards what they were, bit by bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d4k import CheckpointError, Pipeline
from d4k.models import ModelRef, find_model
from d4k.training.data.cache.keys import weights_digest
from d4k.training.data.release import Released

MODELS = {"tiny-sd3": {"vae", "text_encoder", "text_encoder_2", "text_encoder_3"}}
MODELS["tiny-flux"] = {"vae", "text_encoder", "text_encoder_2"}


def others(backbone: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in backbone.components.items() if part is not backbone.trainable}


def held(part: torch.nn.Module) -> int:
    return sum(weight.nbytes for weight in part.parameters() if weight.device.type != "meta")


@pytest.mark.parametrize("model", MODELS)
def test_weights_are_gone_in_the_block_and_back_after_it(model: str) -> None:
    pipe = Pipeline.from_pretrained(model, device="cpu")
    parts, denoiser = others(pipe.backbone), weights_digest(pipe.backbone.trainable)
    digests = {name: weights_digest(part) for name, part in parts.items()}
    shared = {name: len(list(part.parameters())) for name, part in parts.items()}
    (before,) = pipe.generate("a cat", width=32, height=32, steps=1)
    total = sum(map(held, parts.values()))
    with Released(pipe.backbone) as released:
        assert set(released.names) == MODELS[model]
        assert released.bytes == total
        assert sum(map(held, parts.values())) == 0
        assert weights_digest(pipe.backbone.trainable) == denoiser
    assert released.names == ()
    assert {name: weights_digest(part) for name, part in parts.items()} == digests
    assert {name: len(list(part.parameters())) for name, part in parts.items()} == shared  # tied ones are still one
    assert all(not weight.requires_grad for part in parts.values() for weight in part.parameters())
    (after,) = pipe.generate("a cat", width=32, height=32, steps=1)
    assert np.array_equal(before, after)


def test_a_part_that_is_kept_works_in_the_block() -> None:
    backbone = Pipeline.from_pretrained("tiny-sd3", device="cpu").backbone
    with Released(backbone, keep=("vae",)) as released:
        assert "vae" not in released.names
        assert backbone.encode_image(torch.zeros(1, 3, 32, 32)).isfinite().all()
        with pytest.raises((RuntimeError, NotImplementedError)):
            backbone.encode_text(["a cat"]).to(device="cpu")


def test_an_error_in_the_block_brings_the_parts_back_and_leaving_the_process_does_not() -> None:
    backbone = Pipeline.from_pretrained("tiny-flux", device="cpu").backbone
    with pytest.raises(ValueError, match="of the block"), Released(backbone):
        raise ValueError("of the block")
    assert all(map(held, others(backbone).values()))
    with pytest.raises(SystemExit), Released(backbone):
        raise SystemExit(143)
    assert not any(map(held, others(backbone).values()))


def test_weights_that_no_file_has_stay_in_memory() -> None:
    backbone = Pipeline.from_pretrained("tiny-flux", device="cpu").backbone
    with torch.no_grad():
        next(others(backbone)["vae"].parameters()).add_(1)
    digest = weights_digest(others(backbone)["vae"])
    with Released(backbone) as released:
        assert set(released.names) == {"text_encoder", "text_encoder_2"}
    assert weights_digest(others(backbone)["vae"]) == digest


def test_files_that_were_changed_meanwhile_are_an_error_that_names_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(find_model(ModelRef("tiny-flux")).location, folder)
    backbone = Pipeline.from_pretrained(folder, device="cpu").backbone
    (weights,) = (folder / "vae").glob("*.safetensors")
    released = Released(backbone)
    released.__enter__()
    tensors = load_file(weights)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match="vae was changed while the model was trained"):
        released.restore()


def test_a_backbone_that_is_in_no_folder_keeps_all_of_its_parts(backbone: Any) -> None:
    with Released(backbone) as released:
        assert released.names == ()
