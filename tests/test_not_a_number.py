"""NaN and infinity are refused where they enter, and never become a black picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from d4k import CheckpointError, DataError, OutputError, Pipeline
from d4k.adapters import ADAPTER_WEIGHTS, apply_adapter, merge_adapters, read_adapter
from d4k.images import to_uint8
from d4k.models import LoadedModel, Loading, Model, ModelRef, check_finite
from d4k.plugins import registry


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of `tiny-sd3`."""
    return Path(shutil.copytree(registry().get("checkpoint", "tiny-sd3").target, tmp_path / "model"))


def spoil(file: Path, value: float) -> str:
    """Put a value into the last tensor of a file, and name it."""
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_a_model_with_such_weights_is_refused_on_loading(model: Path, part: str, value: float) -> None:
    """Part and tensor are named."""
    name = spoil(next((model / part).glob("*.safetensors")), value)
    with pytest.raises(CheckpointError, match=f"'{name}' of its {part} holds values that are not finite numbers"):
        Pipeline.from_pretrained(model, device="cpu")


def test_weights_on_disk_are_looked_at_before_they_go_there(model: Path) -> None:
    """Afterwards there is nothing left to look at."""
    spoil(model / "transformer" / "diffusion_pytorch_model.safetensors", float("nan"))
    with pytest.raises(CheckpointError, match="of its transformer holds values that are not finite"):
        Pipeline.from_pretrained(model, device="cpu", offload="disk")


@pytest.mark.parametrize(
    ("key", "odd"),
    [("scaling_factor", 0), ("scaling_factor", "1"), ("scaling_factor", float("nan")), ("scaling_factor", True),
     ("shift_factor", float("inf")), ("shift_factor", [0])],
)  # fmt: skip
def test_scaling_of_latents_must_be_a_number(model: Path, key: str, odd: Any) -> None:
    """Nothing times a latent is a picture of one colour."""
    file = model / "vae" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: odd}))
    with pytest.raises(CheckpointError, match=f"the {key} of its autoencoder must be a finite number"):
        Pipeline.from_pretrained(model, device="cpu")


def test_a_model_is_not_saved_with_such_weights(tmp_path: Path) -> None:
    """Nothing appears under the name."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu")
    next(pipe.backbone.trainable.parameters()).data.view(-1)[0] = float("nan")
    with pytest.raises(OutputError, match="of its transformer holds values that are not finite numbers"):
        pipe.save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def lora(file: Path, **spoilt: torch.Tensor) -> Path:
    names = {"down": "transformer.proj_out.lora_A.weight", "up": "transformer.proj_out.lora_B.weight",
             "alpha": "transformer.proj_out.alpha"}  # fmt: skip
    tensors = {"down": torch.ones(2, 8), "up": torch.ones(16, 2), "alpha": torch.tensor(2.0), **spoilt}
    save_file({names[name]: tensor for name, tensor in tensors.items()}, file)
    return file


@pytest.mark.parametrize("name", ["down", "up"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_with_such_values_is_refused_on_reading(tmp_path: Path, name: str, value: float) -> None:
    """The tensor is named."""
    tensor = torch.ones(2, 8) if name == "down" else torch.ones(16, 2)
    tensor[0, 1] = value
    letter = "A" if name == "down" else "B"
    with pytest.raises(CheckpointError, match=rf"values in 'transformer.proj_out.lora_{letter}.weight' that are"):
        read_adapter(lora(tmp_path / ADAPTER_WEIGHTS, **{name: tensor}))


@pytest.mark.parametrize("alpha", [torch.ones(2), torch.tensor(float("nan")), torch.ones(0)])
def test_an_alpha_is_one_finite_number(tmp_path: Path, alpha: torch.Tensor) -> None:
    """Two values, NaN, or none."""
    with pytest.raises(CheckpointError, match="must hold one finite number as 'transformer.proj_out.alpha'"):
        read_adapter(lora(tmp_path / ADAPTER_WEIGHTS, alpha=alpha))


@pytest.mark.parametrize("spoilt", [{"down": torch.ones(2)}, {"up": torch.tensor(1.0)}])
def test_matrices_have_two_sides(tmp_path: Path, spoilt: dict[str, torch.Tensor]) -> None:
    """A vector is no matrix."""
    with pytest.raises(CheckpointError, match="lacks a matching pair of matrices for 'proj_out'"):
        read_adapter(lora(tmp_path / ADAPTER_WEIGHTS, **spoilt))


def test_merging_beyond_float32_is_refused(tmp_path: Path) -> None:
    """A scale that every check of its own allows."""
    from diffusers import SD3Transformer2DModel

    denoiser = SD3Transformer2DModel(
        sample_size=4, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=1, attention_head_dim=8,
        caption_projection_dim=8, pooled_projection_dim=8, joint_attention_dim=8, pos_embed_max_size=4,
    )  # fmt: skip
    loaded = LoadedModel(Model(ModelRef("m"), "sd3", "m"), Loading(), ModelRef("m"))
    loaded = apply_adapter(denoiser, loaded, read_adapter(lora(tmp_path / ADAPTER_WEIGHTS)), 1e39, "x")
    with pytest.raises(CheckpointError, match="adapters x cannot be merged: a weight would no longer be"):
        merge_adapters(denoiser, loaded)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_no_picture(value: float) -> None:
    """One of them is enough; nothing at all is fine."""
    pixels = torch.zeros(3, 4, 4)
    pixels[1, 2, 3] = value
    with pytest.raises(DataError, match="the picture holds values that are not finite numbers"):
        to_uint8(pixels)
    assert to_uint8(torch.zeros(0)).shape == (0,)


def test_integers_and_empty_parts_are_no_fault() -> None:
    """Only numbers with a point can be other than finite."""
    part = torch.nn.Module()
    part.register_buffer("steps", torch.tensor([1, 2]))
    part.register_buffer("none", torch.zeros(0))
    check_finite({"part": part, "tokenizer": object(), "absent": None})
