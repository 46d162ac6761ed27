"""Plans: of published models, against loaded ones, and against memory that was measured."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from click.testing import CliRunner
from torch import Tensor

from d4k import CheckpointError, Conditioning, ConfigError, Pipeline, UnknownNameError
from d4k.adapters import ADAPTER_WEIGHTS, Adapter, write_adapter
from d4k.cli import main
from d4k.config import AdapterSettings, OptimizerSettings, RunConfig, from_mapping, read_toml
from d4k.models import Card, Loading, ModelRef, Training, find_model, write_card
from d4k.planning import Generation, RunPlan, ladder, of_run, plan, shapes
from d4k.planning.state import state_bytes
from d4k.testing import check_shapes
from d4k.training import train_from_config
from d4k.training.optimizers import make_optimizer, training_mode

SMALL = Generation(128, 128)
ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "sd3-medium": {"transformer": 2_028_328_000, "text_encoder": 123_650_304, "text_encoder_2": 694_659_840},
    "sd3.5-large": {"transformer": 8_056_627_520, "vae": 83_819_683},
    "flux-dev": {"transformer": 11_901_408_320, "text_encoder": 123_060_480, "text_encoder_2": 4_762_310_656},
}
"""As their model cards and files on the Hub have them."""


def write_zeros(model: str, folder: Path) -> None:
    """An adapter of a model, all zeros."""
    layers = {name: layer for name, layer in shapes(model).trainable.named_modules() if name.endswith("attn.to_q")}
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{name}.lora_A.weight"] = torch.zeros(4, layer.in_features)
        tensors[f"{name}.lora_B.weight"] = torch.zeros(layer.out_features, 4)
    settings = {"r": 4, "lora_alpha": 4, "target_modules": ["attn.to_q"]}
    write_adapter(Adapter("", tensors, settings), folder / ADAPTER_WEIGHTS)


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
    write_card(tmp_path, Card("sd3", {"downscale": 16}, base=ModelRef("sd3-medium")))
    write_zeros("sd3-medium", tmp_path)
    state = tmp_path / "run" / "checkpoints" / "step-00000001"
    state.mkdir(parents=True)
    (state / "trainable.safetensors").touch()
    config = tmp_path / "run" / "config.toml"
    config.write_text('model = "sd3-medium"\noutput_dir = "x"\ndataset.name = "folder"\n[backbone]\ndownscale = 16\n')
    for model in (tmp_path, state):
        backbone = shapes(str(model))
        own = [p for name, p in backbone.trainable.named_parameters() if ".lora_" not in name]
        assert sum(p.numel() for p in own) == PARAMETERS["sd3-medium"]["transformer"]
        assert backbone.latent.downscale == 16


def test_another_hub_id_needs_the_network() -> None:
    """And the message says so."""
    with pytest.raises(CheckpointError, match="Offline"):
        shapes("someone/some-model")


def test_tokens_and_latents_at_4096() -> None:
    """F16 makes 16,384 tokens of 4096x4096 pixels; guidance of SD3 runs the denoiser twice."""
    found = plan(ModelRef("sd3-medium", options={"downscale": 16}), Generation(4096, 4096))
    assert (found.latent, found.tokens, found.text_tokens) == ((16, 256, 256), 16384, 333)
    assert found.generation.rows["weights"] == sum(part.size for part in found.parts)
    assert found.flops > 2 * 2 * 16384 * 1e9  # at least two operations for each token and half of the weights, twice
    assert found.disk == {"a picture at most": 3 * 4096**2}


def test_training_rows_follow_from_the_weights() -> None:
    """AdamW keeps two moments, 8 bits need a quarter, and each of eight processes with fsdp2 an eighth of all."""
    one = plan("tiny-sd3", SMALL, RunPlan(precision="no"))
    weights = sum(t.numel() * 4 for t in shapes("tiny-sd3", "float32").trainable.parameters())
    assert one.training is not None
    assert one.training.rows["gradients"] == weights
    assert one.training.rows["optimizer"] == 2 * weights
    assert one.disk["a checkpoint of the run"] == 3 * weights
    eight = plan("tiny-sd3", SMALL, RunPlan(processes=8, optimizer="adamw-8bit"))
    assert eight.training is not None
    assert eight.training.rows["optimizer"] == pytest.approx(weights / 2, rel=0.05)
    shared = plan("tiny-sd3", SMALL, RunPlan(processes=8, strategy="fsdp2"))
    assert shared.training is not None
    for what, size in {"gradients": weights, "optimizer": 2 * weights}.items():
        assert shared.training.rows[what] == pytest.approx(size / 8, rel=0.01)
    away = plan("tiny-sd3", SMALL, RunPlan(processes=8, strategy="fsdp2", offload="all", ema="cpu"))
    assert away.training is not None
    assert [away.training.rows[what] for what in ("weights", "gradients", "optimizer")] == [0, 0, 0]
    assert away.training.cpu["optimizer"] == shared.training.rows["optimizer"]
    assert away.training.cpu["moving average"] == pytest.approx(weights / 8, rel=0.01)
    assert away.training.peaks["gradient checkpointing"] < shared.training.peaks["gradient checkpointing"]


def test_what_a_run_adds_is_counted() -> None:
    """A moving average in float32; text encoders and autoencoder that stay; activations that wait on the CPU."""
    lean = "gradient checkpointing"
    usual, average, resident, waiting = (
        plan("tiny-sd3", Generation(512, 512), RunPlan(**settings)).training
        for settings in ({}, {"ema": "same"}, {"cached": False}, {"activation_offload": True})
    )
    assert usual is not None
    assert average is not None
    assert resident is not None
    assert waiting is not None
    weights = sum(t.numel() * 4 for t in shapes("tiny-sd3", "float32").trainable.parameters())
    assert average.peaks[lean] - usual.peaks[lean] == average.rows["moving average"] == weights
    assert resident.rows["weights"] - usual.rows["weights"] == usual.rows["text encoders and autoencoder"]
    assert waiting.peaks["all activations kept"] < 0.7 * usual.peaks["all activations kept"]


def test_the_cache_is_filled_before_there_is_an_optimizer() -> None:
    """With a large autoencoder and small pictures to train, encoding is what takes most."""
    ref = ModelRef("tiny-sd3", options={"text_tokens": 24})
    found = plan(ref, Generation(64, 64), RunPlan(batch_size=1, adapter=AdapterSettings(rank=1))).training
    assert found is not None
    rows = found.rows
    encoding = rows["weights"] + rows["text encoders and autoencoder"] + rows["encoding, at least"]
    assert found.peaks["gradient checkpointing"] == encoding


@pytest.mark.parametrize(
    ("name", "tensors"), [("adamw", 2), ("prodigy", 4), ("schedule-free", 2), ("adamw-8bit", 0), ("muon", 0)]
)
def test_planned_state_is_what_the_optimizer_makes(name: str, tensors: int) -> None:
    """Of each optimizer, after a step, but for a few numbers."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Linear(256, 65))
    optimizer = make_optimizer(OptimizerSettings(name, lr=1.0 if name == "prodigy" else 1e-3), module)
    module(torch.ones(1, 64)).sum().backward()
    with training_mode(optimizer):
        optimizer.step()
    made = 0
    for state in optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value) and value.ndim:
                parts = [getattr(value, part) for part in ("codes", "scale")] if hasattr(value, "codes") else [value]
                made += sum(part.numel() * part.element_size() for part in parts)
    assert state_bytes(module, name) == made
    if tensors:
        assert made == tensors * sum(parameter.numel() * 4 for parameter in module.parameters())


def test_the_first_way_that_fits_is_named() -> None:
    """As asked, then checkpointing, 8 bits, sharing and offloading; what comes later is not planned."""
    run = RunPlan(processes=4)
    ways = dict(ladder("tiny-sd3", Generation(512, 512), run))
    assert list(ways) == [
        "gradient checkpointing",
        "gradient checkpointing and adamw-8bit",
        "gradient checkpointing and fsdp2",
        "gradient checkpointing, fsdp2 and offload all",
        "gradient checkpointing, fsdp2, offload all and activation offload",
    ]
    needed = ways["gradient checkpointing and fsdp2"]
    assert needed < ways["gradient checkpointing and adamw-8bit"] < ways["gradient checkpointing"]
    words = ["plan", "--model", "tiny-sd3", "--size", "512", "--train", "--processes", "4"]
    last = CliRunner().invoke(main, [*words, "--gpu-gb", str(needed / 1e9)]).output.splitlines()[-1]
    assert "yes, with gradient checkpointing and fsdp2 (" in last
    alone = dict(ladder("tiny-sd3", Generation(64, 64), RunPlan(offload="optimizer")))
    assert list(alone)[-1] == "gradient checkpointing, optimizer offload and activation offload"


def test_the_command_plans_several_processes(tmp_path: Path) -> None:
    """With their strategy, offload, optimizer and checkpoints."""
    file = tmp_path / "plan.json"
    words = ["plan", "--model", "tiny-sd3", "--size", "128", "--train", "--processes", "2", "--parallel", "fsdp2"]
    words += ["--offload", "all", "--optimizer", "muon", "--steps", "3000", "--keep-last", "1", "--json", str(file)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "in CPU memory, optimizer" in result.output
    written = json.loads(file.read_text())
    assert (written["settings"]["strategy"], written["settings"]["offload"]) == ("fsdp2", "all")
    assert "2 checkpoints at a time at most" in written["disk"]
    result = CliRunner().invoke(main, ["plan", "--model", "tiny-sd3", "--size", "128", "--train", "--offload", "all"])
    assert result.exit_code == 2
    assert "offload 'all' needs the strategy 'fsdp2'" in result.output


def test_an_adapter_trains_few_weights() -> None:
    """Gradients and optimizer are those of the adapter."""
    runs = RunPlan(), RunPlan(adapter=AdapterSettings(rank=4))
    full, lora = (plan("tiny-flux", Generation(256, 256), run) for run in runs)
    assert full.training is not None
    assert lora.training is not None
    assert lora.training.rows["gradients"] < 0.1 * full.training.rows["gradients"]
    assert lora.training.peaks["gradient checkpointing"] < full.training.peaks["gradient checkpointing"]
    assert lora.disk["the adapter"] == lora.training.rows["gradients"]


def test_fewer_bits_take_less() -> None:
    """Only the denoiser's linear layers are quantised."""
    sizes = {}
    for bits in (None, "int8", "nf4"):
        sizes[bits] = {p.name: p.size for p in plan("tiny-sd3", Generation(64, 64, quantize=bits)).parts}
    assert sizes["nf4"]["transformer"] < sizes["int8"]["transformer"] < sizes[None]["transformer"]
    assert sizes["nf4"]["vae"] == sizes[None]["vae"]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"generation": {"width": 100}}, ConfigError, "width 100 is not a multiple of 16"),
        ({"generation": {"dtype": "float8"}}, UnknownNameError, "unknown dtype 'float8'"),
        ({"precision": "bf61"}, UnknownNameError, "did you mean 'bf16'"),
        ({"generation": {"quantize": "int3"}}, UnknownNameError, "Known: float8, int8, nf4"),
        ({"optimizer": "adam"}, UnknownNameError, "did you mean 'adamw'"),
        ({"generation": {"batch_size": 0}}, ConfigError, "batch_size must be at least 1, got 0"),
        ({"options": {"downscales": 16}}, ConfigError, "did you mean 'downscale'"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    """Before anything is traced."""
    with pytest.raises(error, match=re.escape(words)):
        plan(
            ModelRef("tiny-sd3", options=settings.pop("options", {})),
            Generation(**{"width": 128, "height": 128, **settings.pop("generation", {})}),
            RunPlan(**settings) if settings else None,
        )


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


@pytest.mark.parametrize("size", ["4096y", "x4096", "big", "9" * 5000])
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


@pytest.mark.parametrize("name", ["SD3, ddp, adamw-8bit (the recipe)", "FLUX.1, fsdp2, adamw (the recipe)"])
def test_the_recipes_of_the_paper_fit_as_the_docs_say(benchmark: dict[str, Any], name: str) -> None:
    """On eight devices of 80 GB; the row is that of the recipe in `examples/`, and that of the page."""
    row = next(row for row in benchmark["RECIPES"] if row.name == name)
    config = from_mapping(RunConfig, read_toml(ROOT / "examples" / f"train_{row.model.split('-')[0][:4]}_4k.toml"))
    _, generation, run = of_run(config)
    planned = RunPlan(row.batch, processes=8, checkpointing=True, **row.settings)
    for field in ("batch_size", "accumulation", "precision", "optimizer", "sharing", "offload", "ema", "cached"):
        assert getattr(evolve(run, processes=8), field) == getattr(planned, field)
    assert (generation.width, generation.height, config.backbone["downscale"]) == (4096, 4096, 16)
    line = benchmark["recipe_row"](row)
    assert " | yes | " in line
    page = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    assert line in page.split("<!-- recipes -->")[1].split("<!-- end of recipes -->")[0]


def test_any_backbone_can_be_planned(fake_plugin: None) -> None:
    """One whose autoencoder is its own is followed through its own decoding."""
    found = plan("fake-model", Generation(32, 16))
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


def test_an_adapter_is_trained_over_weights_in_the_dtype_of_the_run() -> None:
    """As `d4k train` loads them: SD3 at 4096x4096 fits 24 GB so, and would not in float32."""
    adapter = AdapterSettings(rank=16)
    ref, area = ModelRef("sd3-medium", options={"downscale": 16}), Generation(4096, 4096)
    narrow, wide = (plan(ref, area, RunPlan(adapter=adapter, dtype=dtype)) for dtype in (None, "float32"))
    assert narrow.training is not None
    assert wide.training is not None
    assert narrow.settings["train_dtype"] == "bfloat16"
    assert narrow.training.rows["weights"] == pytest.approx(wide.training.rows["weights"] / 2, rel=0.01)
    lean = "gradient checkpointing"
    assert narrow.training.peaks[lean] < 24e9 < wide.training.peaks[lean]


@pytest.mark.parametrize(
    ("precision", "adapter", "dtype"),
    [
        ("bf16", True, "bfloat16"),
        ("no", True, "float32"),
        ("bf16", False, "float32"),
    ],
)
def test_the_dtype_of_training_is_one_rule(
    precision: str, adapter: bool, dtype: str, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is planned is what a run from the same configuration loads."""
    data: dict[str, Any] = {"model": "tiny-sd3", "dataset": {"name": "folder", "options": {"path": str(photos)}}}
    data |= {"output_dir": str(tmp_path / "run"), "training": {"precision": precision, "steps": 1}}
    data |= {"data": {"width": 64, "height": 64, "enlarge": True}, "loss": {"name": "mse"}} | (
        {"adapter": {}} if adapter else {}
    )
    config = from_mapping(RunConfig, data)
    assert of_run(config)[2].weights == dtype
    loaded: list[str] = []

    def stop(ref: ModelRef, loading: Loading) -> None:
        loaded.append(loading.dtype)
        raise ConfigError("enough")

    monkeypatch.setattr(sys.modules["d4k.training.fine_tune"], "load_model", stop)
    with pytest.raises(ConfigError, match="enough"):
        train_from_config(config)
    assert loaded == [dtype]


@pytest.mark.parametrize(
    ("steps", "save_every", "keep_last", "keep_every", "most", "left"),
    [
        (1000, 100, 2, 0, "3 checkpoints", "2 checkpoints"),
        (1000, 100, 0, 0, "10 checkpoints", "10 checkpoints"),
        (1001, 500, 5, 0, "3 checkpoints", "3 checkpoints"),
        (1000, 100, 1, 500, "3 checkpoints", "2 checkpoints"),
        (1000, 0, 2, 0, "1 checkpoint", "1 checkpoint"),
    ],
)
def test_the_checkpoints_that_are_kept_are_counted(
    steps: int, save_every: int, keep_last: int, keep_every: int, most: str, left: str
) -> None:
    """And not all that are written."""
    run = RunPlan(steps=steps, save_every=save_every, keep_last=keep_last, keep_every=keep_every)
    found = plan("tiny-sd3", SMALL, run)
    one = found.disk["a checkpoint of the run"]
    assert found.disk[f"{most} at a time at most"] == int(most.split()[0]) * one
    assert found.disk[f"{left} in the end"] == int(left.split()[0]) * one


@pytest.mark.parametrize("recipe", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.stem)
def test_a_run_is_planned_by_its_configuration(recipe: Path) -> None:
    """Model, options, size, batch and training are those of the file."""
    config = from_mapping(RunConfig, read_toml(recipe))
    ref, generation, run = of_run(config)
    assert (ref.name, dict(ref.options)) == (config.model, dict(config.backbone))
    assert (generation.width, run.batch_size, run.adapter) == (
        config.data.width, config.training.batch_size, config.adapter,
    )  # fmt: skip
    assert (run.steps, run.optimizer) == (config.training.steps, config.optimizer.name)
    assert (run.strategy, run.offload) == (config.parallel.strategy, config.parallel.offload)
    assert (run.keep_last, run.keep_every) == (config.training.keep_last, config.training.keep_every)


def test_the_command_plans_a_run(tmp_path: Path) -> None:
    """With settings changed, and the last line about the way that the run goes."""
    file = tmp_path / "plan.json"
    words = ["plan", str(ROOT / "examples" / "train_tiny.toml"), "--set", "data.width=192", "--set", "data.height=128"]
    words += ["--set", "training.gradient_checkpointing=true", "--set", "training.steps=1200", "--json", str(file)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].startswith("training fits a GPU of 24 GB: yes (gradient checkpointing: ")
    written = json.loads(file.read_text())
    assert (written["settings"]["width"], written["settings"]["height"]) == (192, 128)
    assert any(name.endswith(" at a time at most") for name in written["disk"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["examples/train_tiny.toml", "--size", "128"], "--size is what"),
        (["examples/train_tiny.toml", "--option", "downscale=16"], "change the file's backbone with --set"),
        (["--set", "training.steps=5"], "--set changes settings of RUN.toml, and none was given"),
        (["nowhere.toml"], "cannot read nowhere.toml"),
    ],
)
def test_what_the_file_says_is_not_said_twice(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither counts in silence."""
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, ["plan", *words])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_what_fits_only_in_one_way_is_said_so() -> None:
    """The way, and the figures of both."""
    found = plan("tiny-sd3", Generation(512, 512), RunPlan())
    assert found.training is not None
    lean, plain = (found.training.peaks[way] for way in ("gradient checkpointing", "all activations kept"))
    words = ["plan", "--model", "tiny-sd3", "--size", "512", "--train", "--gpu-gb", str((lean + plain) / 2e9)]
    last = CliRunner().invoke(main, words).output.splitlines()[-1]
    assert "yes, with gradient checkpointing (" in last
    assert "; all activations kept: " in last


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of tiny-sd3, trained with other positions and at another downscale."""
    folder = tmp_path_factory.mktemp("adapter")
    write_zeros("tiny-sd3", folder)
    learnt = {"positions": "interpolate", "downscale": 16}
    write_card(folder, Card("sd3", learnt, Training(options=learnt), ModelRef("tiny-sd3")))  # as a run writes it
    return folder


def test_an_adapter_is_planned_with_its_model(adapter: Path) -> None:
    """Its weights count, and what it was trained with where the model does not say."""
    plain = plan("tiny-sd3", SMALL)
    for model in (ModelRef("tiny-sd3", adapters={str(adapter): 1.0}), str(adapter)):
        found = plan(model, SMALL)
        assert found.generation.rows["weights"] > plain.generation.rows["weights"]
        assert found.settings["positions"] == "interpolate"
        assert found.latent == (16, 8, 8)
    with pytest.raises(ConfigError, match="cannot train a model that has adapters"):
        plan(ModelRef("tiny-sd3", adapters={str(adapter): 1.0}), SMALL, RunPlan())


def test_an_adapter_of_another_model_is_refused(adapter: Path) -> None:
    """As on loading."""
    with pytest.raises(CheckpointError, match="does not fit this model"):
        plan(ModelRef("tiny-flux", adapters={str(adapter): 1.0}), SMALL)


def test_another_denoiser_is_planned_in_place_of_the_models_own(tmp_path: Path) -> None:
    """By the configuration in its folder."""
    denoiser = Path(
        shutil.copytree(Path(find_model(ModelRef("tiny-sd3")).location) / "transformer", tmp_path / "denoiser")
    )
    config = json.loads((denoiser / "config.json").read_text())
    (denoiser / "config.json").write_text(json.dumps({**config, "num_layers": 1}))
    full, less = (plan(ModelRef("tiny-sd3", transformer=other), SMALL) for other in (None, str(denoiser)))
    assert less.generation.rows["weights"] < full.generation.rows["weights"]
    assert less.settings["transformer"] == str(denoiser)


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    """As on loading."""
    location = find_model(ModelRef("tiny-sd3")).location
    with pytest.raises(ConfigError, match="revision 'main' is of a Hub id"):
        plan(ModelRef(location, revision="main"), SMALL)


@pytest.fixture
def reads(fake_plugin: None, backbone: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`reads(look)`: from now on the fake denoiser looks at the latent and at a mask over five tokens."""
    kind = type(backbone)
    encode_text, velocity = kind.encode_text, kind.velocity

    def do(look: Callable[[Tensor, Tensor], Any]) -> None:
        def with_mask(self: Any, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
            mask = torch.empty(len(prompts), 5, dtype=torch.int64, device="meta")
            return Conditioning({**encode_text(self, prompts, negative).tensors, "mask": mask})

        def looking(self: Any, noisy: Tensor, sigma: Tensor, conditioning: Conditioning, *rest: Any) -> Tensor:
            look(noisy, conditioning.tensors["mask"])
            result: Tensor = velocity(self, noisy, sigma, conditioning, *rest)
            return result

        monkeypatch.setattr(kind, "encode_text", with_mask)
        monkeypatch.setattr(kind, "velocity", looking)

    return do


def test_a_model_that_reads_its_masks_is_planned(reads: Callable[..., None]) -> None:
    """For generating and for training, with texts as long as can be."""
    seen: list[Any] = []
    reads(lambda noisy, mask: seen.append(mask.sum(1).tolist()))
    found = plan("fake-model", Generation(32, 16, batch_size=2), RunPlan(precision="no"))
    assert seen == [[5, 5], [5], [5]]
    assert found.training_flops


def test_a_model_that_reads_other_values_is_refused_by_name(reads: Callable[..., None]) -> None:
    """In one sentence."""
    reads(lambda noisy, mask: noisy.max().item())
    with pytest.raises(ConfigError, match="Denoiser cannot be planned: when it is sampled, it reads values"):
        plan("fake-model", Generation(32, 16))
