"""Plans: of published models, against loaded ones, and against memory that was measured."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from d4k import CheckpointError, ConfigError, Pipeline, UnknownNameError
from d4k.cli import main
from d4k.models import write_card
from d4k.planning import plan, shapes
from d4k.testing import check_shapes

ROOT = Path(__file__).parents[1]
PARAMETERS = {
    "sd3-medium": {"transformer": 2_028_328_000, "text_encoder": 123_650_304, "text_encoder_2": 694_659_840},
    "sd3.5-large": {"transformer": 8_056_627_520, "vae": 83_819_683},
    "flux-dev": {"transformer": 11_901_408_320, "text_encoder": 123_060_480, "text_encoder_2": 4_762_310_656},
}
"""As their model cards and files on the Hub have them."""


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks" / "plan.py"))


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_models_have_their_published_parameters(name: str) -> None:
    """Made from the configuration files that a plugin brings, without a network."""
    parts = shapes(name).components
    assert {part: sum(p.numel() for p in parts[part].parameters()) for part in PARAMETERS[name]} == PARAMETERS[name]


@pytest.mark.parametrize("name", ["tiny-sd3", "tiny-flux", "sd3-medium"])
def test_backbones_keep_the_contract_of_shapes(name: str) -> None:
    """On the device meta, text, latents and velocity have shapes and no values."""
    check_shapes(shapes(name))


@pytest.mark.parametrize("name", ["tiny-sd3", "tiny-flux"])
def test_shapes_are_those_of_the_loaded_model(name: str) -> None:
    """Weights, buffers, and the texts that a loaded model encodes."""
    loaded, made = Pipeline.from_pretrained(name).backbone, shapes(name, "float32")
    for part, module in loaded.components.items():
        state = made.components[part].state_dict()
        assert {k: (v.shape, v.dtype) for k, v in module.state_dict().items()} == {
            k: (v.shape, v.dtype) for k, v in state.items()
        }
    real, planned = loaded.encode_text(["a cat"], "").tensors, made.encode_text(["a cat"], "").tensors
    assert {key: value.shape for key, value in real.items()} == {key: value.shape for key, value in planned.items()}


def test_a_published_model_is_planned_by_its_hub_id_without_a_network() -> None:
    """The configuration files of the plugin stand for it."""
    assert shapes("black-forest-labs/FLUX.1-dev").latent.channels == 16


def test_what_was_trained_on_a_published_model_is_planned_without_a_network(tmp_path: Path) -> None:
    """An adapter of `sd3-medium`, and a run over it that has not ended, with their options."""
    write_card(tmp_path, "sd3", {"downscale": 16}, base="sd3-medium")
    state = tmp_path / "run" / "checkpoints" / "step-00000001"
    state.mkdir(parents=True)
    (state / "trainable.safetensors").touch()
    (tmp_path / "run" / "config.toml").write_text('model = "sd3-medium"\n[backbone]\ndownscale = 16\n')
    for model in (tmp_path, state):
        backbone = shapes(str(model))
        assert sum(p.numel() for p in backbone.trainable.parameters()) == PARAMETERS["sd3-medium"]["transformer"]
        assert backbone.latent.downscale == 16


def test_another_hub_id_needs_the_network() -> None:
    """And the message says so."""
    with pytest.raises(CheckpointError, match="Offline"):
        shapes("someone/some-model")


def test_tokens_and_latents_at_4096() -> None:
    """F16 makes 16,384 tokens of 4096x4096 pixels; guidance of SD3 runs the denoiser twice."""
    found = plan("sd3-medium", width=4096, height=4096, downscale=16)
    assert (found.latent, found.tokens, found.text_tokens) == ((16, 256, 256), 16384, 333)
    assert found.generation.rows["weights"] == sum(part.size for part in found.parts)
    assert found.flops > 2 * 2 * 16384 * 1e9  # at least two operations for each token and half of the weights, twice
    assert found.disk == {"a picture at most": 3 * 4096**2}


def test_training_rows_follow_from_the_weights() -> None:
    """AdamW keeps two moments; several processes exchange gradients through a copy; 8 bits need a quarter."""
    one = plan("tiny-sd3", width=128, height=128, train=True, precision="no")
    weights = sum(t.numel() * 4 for t in shapes("tiny-sd3", "float32").trainable.parameters())
    assert one.training is not None
    assert one.training.rows["gradients"] == weights
    assert one.training.rows["optimizer"] == 2 * weights
    assert one.disk["a checkpoint of the run"] == 3 * weights
    eight = plan("tiny-sd3", width=128, height=128, train=True, processes=8, optimizer="adamw-8bit")
    assert eight.training is not None
    assert eight.training.rows["gradients being exchanged"] == weights
    assert eight.training.rows["optimizer"] == pytest.approx(weights / 2, rel=0.02)


def test_an_adapter_trains_few_weights() -> None:
    """Gradients and optimizer are those of the adapter."""
    full, lora = (plan("tiny-flux", width=256, height=256, train=True, adapter_rank=rank) for rank in (None, 4))
    assert full.training is not None
    assert lora.training is not None
    assert lora.training.rows["gradients"] < 0.1 * full.training.rows["gradients"]
    assert lora.training.peaks["gradient checkpointing"] < full.training.peaks["gradient checkpointing"]
    assert lora.disk["the adapter"] == lora.training.rows["gradients"]


def test_fewer_bits_take_less() -> None:
    """Only the denoiser's linear layers are quantised."""
    sizes = {}
    for bits in (None, "int8", "nf4"):
        sizes[bits] = {p.name: p.size for p in plan("tiny-sd3", width=64, height=64, quantize=bits).parts}
    assert sizes["nf4"]["transformer"] < sizes["int8"]["transformer"] < sizes[None]["transformer"]
    assert sizes["nf4"]["vae"] == sizes[None]["vae"]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"width": 100}, ConfigError, "width 100 is not a multiple of 16"),
        ({"dtype": "float8"}, UnknownNameError, "unknown dtype 'float8'"),
        ({"precision": "bf61"}, UnknownNameError, "did you mean 'bf16'"),
        ({"quantize": "int3"}, UnknownNameError, "Known: float8, int8, nf4"),
        ({"optimizer": "adam"}, UnknownNameError, "did you mean 'adamw'"),
        ({"batch_size": 0}, ConfigError, "batch_size must be at least 1, got 0"),
        ({"downscales": 16}, ConfigError, "did you mean 'downscale'"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    """Before anything is traced."""
    with pytest.raises(error, match=re.escape(words)):
        plan("tiny-sd3", **{"width": 128, "height": 128, **settings})


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    """The last lines say whether it fits, and the file has every figure."""
    words = ["plan", "--model", "tiny-sd3", "--size", "256", "--train", "--gpu-gb", "0.05", "--downscale", "16"]
    words += ["--option", "text_tokens=8", "--json", str(tmp_path / "plan.json")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "latent 16x16x16: 64 tokens, and 32 of the text" in result.output
    verdict = result.output.splitlines()[-1]
    assert verdict.startswith("training fits a GPU of 0.05 GB: no (all activations kept: ")
    assert "; with gradient checkpointing: " in verdict
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["tokens"] == 64
    assert set(written["training"]["rows"]) >= {"weights", "gradients", "optimizer", "activations"}


@pytest.mark.parametrize("size", ["4096y", "x4096", "big"])
def test_a_size_that_is_none_is_an_error(size: str) -> None:
    """With an example."""
    result = CliRunner().invoke(main, ["plan", "--size", size])
    assert result.exit_code == 2
    assert f"cannot read the size '{size}'; write width x height in pixels, such as 3072x4096" in result.output


def test_the_published_figures_are_met(benchmark: dict[str, Any]) -> None:
    """Within 20 % of what arXiv 2503.18352 reports; out of memory where it is; the table of the docs is this one."""
    page = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    table = page.split("<!-- published -->")[1].split("<!-- end of published -->")[0]
    shown = {row.split(" | ")[0].strip("| "): row.split(" | ")[2] for row in table.strip().splitlines()[2:]}
    assert list(shown) == [row.name for row in benchmark["PUBLISHED"]]
    for row in benchmark["PUBLISHED"]:
        planned = benchmark["as_published"](row)
        assert shown[row.name] == f"{planned:.1f} GB"
        if row.gigabytes is None:
            assert planned > benchmark["GPU_GB"]
        else:
            assert planned == pytest.approx(row.gigabytes, rel=0.2)
    last = re.search(r"^\| SD3, F16 \|.* (\S+ GB) \|$", table, re.MULTILINE)
    assert last is not None
    assert last[1] == f"{benchmark['in_d4k'](benchmark['PUBLISHED'][0]):.1f} GB"


def test_any_backbone_can_be_planned(fake_plugin: None) -> None:
    """One whose autoencoder is its own is followed through its own decoding."""
    found = plan("fake-model", width=32, height=16)
    assert found.generation.rows["weights"] > 0
    assert found.generation.rows["decoding, at least"] == found.generation.rows["decoding, if there is room"] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the highest resident memory can be set back on Linux only")
@pytest.mark.parametrize("what", ["sampling", "training"])
def test_the_plan_is_what_the_system_measures(benchmark: dict[str, Any], what: str) -> None:
    """Within 15 % of the growth of resident memory in a fresh process."""
    planned = benchmark["planned_bytes"]("tiny-sd3", 768, what)
    assert planned == pytest.approx(benchmark["measured_bytes"]("tiny-sd3", 768, what), rel=0.15)


def test_half_precision_keeps_what_transformers_keeps() -> None:
    """T5's output projections stay in float32 in float16, as transformers loads them."""
    parts = shapes("tiny-sd3", "float16").components
    kinds = {name: p.dtype for name, p in parts["text_encoder_3"].named_parameters() if ".wo." in name}
    assert set(kinds.values()) == {torch.float32}
