"""Pipelines without weights, from configuration files that others may have written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from d4k import CheckpointError, Placement
from d4k.models import ModelRef, Tokenizer, config_reader, empty_pipeline, find_model, load_pipeline

META = Placement(torch.device("meta"), torch.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_model(ModelRef("tiny-sd3")).location, tmp_path / "model"))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize("part", ["transformer", "scheduler", "tokenizer", "feature_extractor"])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_nothing_is_imported_because_a_file_names_it(
    model: Path, part: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for planning nor for loading, whichever part it is said to be."""
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    change(model / "model_index.json", **{part: ["evil_module", "Evil"]})
    with pytest.raises(CheckpointError):
        load_pipeline(StableDiffusion3Pipeline, str(model), Placement(torch.device(device), torch.float32))
    assert not (tmp_path / "ran").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (["evil_module", "Evil"], "diffusers and transformers only"),
        (["torch", "nn"], "diffusers and transformers only"),
        (["diffusers", None], "diffusers and transformers only"),
        ([["diffusers"], "X"], "diffusers and transformers only"),
        (["diffusers"], "diffusers and transformers only"),
        (["diffusers", "NoSuchModel"], "which the installed diffusers does not have"),
        (["transformers", "pipeline"], "no part of a pipeline"),
        (["diffusers", "utils"], "no part of a pipeline"),
        (["diffusers", "DiffusionPipeline"], "no part of a pipeline"),
    ],
)
def test_what_is_no_part_is_refused(model: Path, entry: list[Any], words: str) -> None:
    """By the name that the file gives it."""
    change(model / "model_index.json", transformer=entry)
    with pytest.raises(CheckpointError, match=words):
        empty_pipeline(StableDiffusion3Pipeline, config_reader(str(model), META), torch.float32)


def test_the_tokenizer_that_stands_in_may_be_written_to() -> None:
    """As pipelines of Lumina 2 and HiDream do."""
    stand_in: Any = Tokenizer(77)
    stand_in.padding_side = "right"
    stand_in.pad_token = stand_in.eos_token
    assert (stand_in.padding_side, stand_in.model_max_length) == ("right", 77)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("transformer", {"num_layers": 10**6}),
        ("transformer", {"num_attention_heads": 10**9}),
        ("transformer", {"attention_head_dim": 10**9}),
        ("transformer", {"pos_embed_max_size": 10**6}),
        ("vae", {"block_out_channels": [32, 10**9]}),
        ("vae", {"layers_per_block": 10**6}),
        ("text_encoder", {"hidden_size": 10**9}),
        ("text_encoder_3", {"d_model": 10**9}),
        ("text_encoder_3", {"num_layers": 10**6}),
        ("text_encoder", {"vocab_size": 10**12}),
    ],
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_configuration_beyond_all_reason_is_refused(
    model: Path, part: str, values: dict[str, Any], device: str
) -> None:
    """Before torch makes anything of that size, and before it makes a million layers."""
    change(model / part / "config.json", **values)
    with pytest.raises(CheckpointError, match=rf"{part}.config.json asks for {next(iter(values))} = 1e"):
        load_pipeline(StableDiffusion3Pipeline, str(model), Placement(torch.device(device), torch.float32))


def test_a_configuration_that_makes_no_model_is_a_sentence(model: Path) -> None:
    """Not a traceback of diffusers."""
    change(model / "vae" / "config.json", norm_num_groups=7)
    with pytest.raises(CheckpointError, match="no AutoencoderKL can be made as vae/config.json says"):
        load_pipeline(StableDiffusion3Pipeline, str(model), META)


@pytest.mark.parametrize("inner", ["", "transformer"])
def test_another_denoiser_is_planned_by_its_own_configuration(model: Path, tmp_path: Path, inner: str) -> None:
    """Of a folder, or of a model in a folder."""
    other = tmp_path / "other"
    shutil.copytree(model / "transformer", other / inner)
    change(other / inner / "config.json", num_layers=1)
    placement = Placement(torch.device("meta"), torch.float32, transformer=str(other))
    pipeline = load_pipeline(StableDiffusion3Pipeline, str(model), placement)
    assert pipeline.transformer.config.num_layers == 1
