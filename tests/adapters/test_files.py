"""The files of adapters: both layouts, their names and scales, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from d4k import CheckpointError, ConfigError, OutputError, UnknownNameError
from d4k.adapters import ADAPTER_WEIGHTS as WEIGHTS
from d4k.adapters import Adapter, find_adapter, read_adapter, write_adapter
from d4k.cli import main
from d4k.cli.adapter import read_scales

LAYER = "transformer_blocks.0.attn.to_q"


def adapter(**settings: Any) -> Adapter:
    """Two layers of different rank."""
    tensors = {
        f"{LAYER}.lora_A.weight": torch.ones(4, 6),
        f"{LAYER}.lora_B.weight": torch.ones(8, 4),
        "proj_out.lora_A.weight": torch.ones(2, 6),
        "proj_out.lora_B.weight": torch.ones(8, 2),
    }
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": ["proj_out", "to_q"], "rank_pattern": {"^proj_out": 2}}
    return Adapter("", tensors, {**chosen, **settings})


def keys(file: Path) -> list[str]:
    with safe_open(file, "pt") as opened:
        return sorted(opened.keys())


def test_an_adapter_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Tensors, settings and ranks; the metadata is where diffusers looks for it."""
    file = tmp_path / WEIGHTS
    write_adapter(adapter(), file)
    again = read_adapter(file)
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in adapter().tensors.items())
    assert again.settings == adapter().settings
    assert again.ranks == {LAYER: 4, "proj_out": 2}
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["lora_adapter_metadata"])["transformer.lora_alpha"] == 8
    assert keys(file) == sorted(f"transformer.{name}" for name in adapter().tensors)


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_equal_adapters_are_equal_files(tmp_path: Path, layout: Any) -> None:
    """Byte by byte, so that their hashes can be compared; safetensors alone writes the metadata in any order."""
    found = set()
    for number in range(20):
        write_adapter(adapter(), tmp_path / f"{number}.safetensors", layout=layout)
        found.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(found) == 1


def test_the_comfyui_layout_has_an_alpha_beside_each_pair(tmp_path: Path) -> None:
    """`transformer.` and diffusers' names, `lora_A`, `lora_B` and a scalar `alpha` for each layer, nothing else."""
    file = tmp_path / "style.safetensors"
    write_adapter(adapter(alpha_pattern={"^proj_out": 5}), file, layout="comfyui")
    assert keys(file) == [
        "transformer.proj_out.alpha",
        "transformer.proj_out.lora_A.weight",
        "transformer.proj_out.lora_B.weight",
        f"transformer.{LAYER}.alpha",
        f"transformer.{LAYER}.lora_A.weight",
        f"transformer.{LAYER}.lora_B.weight",
    ]
    alphas = {name: tensor for name, tensor in load_file(file).items() if name.endswith(".alpha")}
    assert {name: (tensor.shape, float(tensor)) for name, tensor in alphas.items()} == {
        "transformer.proj_out.alpha": ((), 5.0),
        f"transformer.{LAYER}.alpha": ((), 8.0),
    }


SD3 = ["add_k_proj", "add_q_proj", "add_v_proj", "to_add_out", "to_k", "to_out.0", "to_q", "to_v"]


@pytest.mark.parametrize(
    ("model", "config", "layers"),
    [
        (
            SD3Transformer2DModel,
            {"num_layers": 2, "caption_projection_dim": 8, "pooled_projection_dim": 8, "joint_attention_dim": 8},
            [f"transformer_blocks.0.attn.{name}" for name in SD3]
            + [f"transformer_blocks.1.attn.{name}" for name in SD3 if name != "to_add_out"],
        ),
        (
            FluxTransformer2DModel,
            {"num_layers": 1, "num_single_layers": 1, "pooled_projection_dim": 8, "joint_attention_dim": 8,
             "axes_dims_rope": (2, 2, 4)},
            [f"single_transformer_blocks.0.attn.{name}" for name in ("to_k", "to_q", "to_v")]
            + [f"transformer_blocks.0.attn.{name}" for name in SD3],
        ),
    ],
)  # fmt: skip
def test_names_for_comfyui_of_both_architectures(tmp_path: Path, model: Any, config: Any, layers: list[str]) -> None:
    """Written out: the names that ComfyUI maps onto the original weights of SD3 and FLUX.1."""
    from d4k.adapters import add_adapter, trained_adapter
    from d4k.config import AdapterSettings

    denoiser = model(num_attention_heads=1, attention_head_dim=8, in_channels=4, **config)
    add_adapter(denoiser, AdapterSettings(rank=2, alpha=3))
    write_adapter(trained_adapter(denoiser), tmp_path / "x.safetensors", layout="comfyui")
    ends = ("alpha", "lora_A.weight", "lora_B.weight")
    assert keys(tmp_path / "x.safetensors") == sorted(f"transformer.{layer}.{end}" for layer in layers for end in ends)


def test_alphas_are_read_back(tmp_path: Path) -> None:
    """From the ComfyUI layout to diffusers' and back nothing changes, for equal and for unequal scales."""
    for number, settings in enumerate(({}, {"alpha_pattern": {"^proj_out": 5.0}})):
        first, second, third = (tmp_path / f"{number}{step}.safetensors" for step in "abc")
        write_adapter(adapter(**settings), first, layout="comfyui")
        write_adapter(read_adapter(first), second)
        write_adapter(read_adapter(second), third, layout="comfyui")
        one, other = load_file(first), load_file(third)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_rank_stabilised_alpha_is_written_as_a_plain_one(tmp_path: Path) -> None:
    """Peft's alpha / sqrt(rank) becomes alpha' / rank."""
    write_adapter(adapter(use_rslora=True), tmp_path / "x.safetensors", layout="comfyui")
    alphas = load_file(tmp_path / "x.safetensors")
    assert float(alphas[f"transformer.{LAYER}.alpha"]) == 16.0
    assert float(alphas["transformer.proj_out.alpha"]) == pytest.approx(8 * 2**0.5)


def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Magnitudes of DoRA have no place in it; nothing is written."""
    tensors = {**adapter().tensors, "proj_out.lora_magnitude_vector": torch.ones(8)}
    with pytest.raises(ConfigError, match="'comfyui' has no name for 'proj_out.lora_magnitude_vector'"):
        write_adapter(Adapter("x", tensors, adapter().settings), tmp_path / "x.safetensors", layout="comfyui")
    with pytest.raises(UnknownNameError, match="unknown layout 'comfy'; did you mean 'comfyui'"):
        write_adapter(adapter(), tmp_path / "x.safetensors", layout="comfy")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="the ending of an adapter must be .safetensors"):
        write_adapter(adapter(), tmp_path / "x.bin")
    assert list(tmp_path.iterdir()) == []


def test_settings_without_metadata_are_those_of_peft(tmp_path: Path) -> None:
    """Layers of unequal rank and no alpha each count 1: alpha is the rank."""
    save_file({f"transformer.{name}": tensor for name, tensor in adapter().tensors.items()}, tmp_path / WEIGHTS)
    settings = read_adapter(tmp_path).settings
    denoiser = FluxTransformer2DModel(
        num_layers=1, num_single_layers=0, num_attention_heads=1, attention_head_dim=8, in_channels=6,
        pooled_projection_dim=8, joint_attention_dim=8, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    denoiser.add_adapter(LoraConfig(**settings))
    shapes = {
        name: tensor.shape[0] for name, tensor in get_peft_model_state_dict(denoiser, adapter_name="default").items()
    }
    assert (shapes[f"{LAYER}.lora_A.weight"], shapes["proj_out.lora_A.weight"]) == (4, 2)
    assert {module.scaling["default"] for module in denoiser.modules() if hasattr(module, "scaling")} == {1.0}


@pytest.mark.parametrize("where", ["", "adapter"])
def test_a_folder_stands_for_the_file_in_it(tmp_path: Path, where: str) -> None:
    """That of the adapter itself, or of the run that trained it."""
    write_adapter(adapter(), tmp_path / where / WEIGHTS)
    assert find_adapter(tmp_path) == tmp_path / where / WEIGHTS


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("runs/first", "first"), ("runs/first/adapter", "first"), (f"runs/first/adapter/{WEIGHTS}", "first"),
        ("loras/oil-paint v1.5.safetensors", "oil_paint_v1_5"), ("owner/style", "style"), ("runs/v1.5", "v1_5"),
    ],
)  # fmt: skip
def test_adapters_are_named_after_their_files(source: str, name: str) -> None:
    """In letters, digits and underscores, which peft takes for names."""
    assert Adapter(source, {}, {}).name == name


def test_pickled_weights_are_refused_unread(tmp_path: Path) -> None:
    """As a file, and as the only one of a folder."""
    file = tmp_path / "pytorch_lora_weights.bin"
    file.write_bytes(b"cos\nsystem\n")
    with pytest.raises(CheckpointError, match=r"\.bin is not a \.safetensors file; d4k reads no pickled weights"):
        read_adapter(file)
    with pytest.raises(CheckpointError, match=rf"holds no {WEIGHTS}, only pytorch_lora_weights\.bin"):
        read_adapter(tmp_path)


def test_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    """A path that cannot be a Hub id, and a Hub id that cannot be had."""
    with pytest.raises(CheckpointError, match="there is no adapter .*; give a .safetensors file, the folder of a run"):
        read_adapter(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="there is no adapter owner/style here, nor .* on the Hub. Offline"):
        read_adapter("owner/style")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    """Cut short; without a pair; names of another program; nothing for the denoiser."""
    file = tmp_path / "x.safetensors"
    write_adapter(adapter(), file)
    whole = load_file(file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="cannot read adapter .*is it cut short"):
        read_adapter(file)
    for tensors, message in (
        ({n: t for n, t in whole.items() if n != "transformer.proj_out.lora_B.weight"}, "matching pair .* 'proj_out'"),
        ({"lora_unet_double_blocks_0.lora_down.weight": torch.ones(1)}, "where diffusers writes"),
        ({}, "there is nothing to load"),
    ):
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match=message):
            read_adapter(file)


def test_tensors_of_text_encoders_are_ignored_with_a_warning(tmp_path: Path) -> None:
    """An adapter of d4k is one of the denoiser."""
    tensors = {f"transformer.{name}": tensor for name, tensor in adapter().tensors.items()}
    save_file({**tensors, "text_encoder.a.lora_A.weight": torch.ones(1)}, tmp_path / WEIGHTS)
    with pytest.warns(UserWarning, match="1 tensors of text encoders are ignored"):
        assert len(read_adapter(tmp_path).tensors) == 4


def test_weights_follow_a_colon() -> None:
    """A number; other colons belong to the path."""
    assert read_scales(("a:0.5", "b", "c:-2", "d:x", "e:1.5.2")) == {
        "a": 0.5, "b": 1.0, "c": -2.0, "d:x": 1.0, "e:1.5.2": 1.0,
    }  # fmt: skip


def test_the_command_line_converts_and_never_overwrites(tmp_path: Path) -> None:
    """`d4k adapter convert` writes the layout that is asked for."""
    write_adapter(adapter(), tmp_path / "run" / "adapter" / WEIGHTS)
    words = [
        "adapter",
        "convert",
        str(tmp_path / "run"),
        "--layout",
        "comfyui",
        "--output",
        str(tmp_path / "x.safetensors"),
    ]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (0, f"2 layers: {tmp_path / 'x.safetensors'}\n")
    assert "transformer.proj_out.alpha" in keys(tmp_path / "x.safetensors")
    again = CliRunner().invoke(main, words)
    assert (again.exit_code, "exists already" in again.stderr) == (2, True)
