"""Runs that train an adapter: the base stays as it is, the run is resumed exactly, and its folder is a model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from torch import Tensor

from d4k import CheckpointError, ConfigError, Pipeline
from d4k.cli import main
from d4k.config import AdapterSettings, RunConfig, from_mapping, read_toml
from d4k.models import CARD, Card, Model, ModelRef, find_model, read_card, write_card
from d4k.training import MSELoss, train, train_from_config

KNOWN = Model(ModelRef("fake-model"), "fake", "", options={"seed": 0})

Config = Callable[..., Any]
ADAPTER = {"rank": 2, "targets": ["into", "out"]}


def weights(backbone: Any, part: str = "") -> dict[str, Tensor]:
    """Copies, under the names that they have without adapters."""
    state = backbone.trainable.state_dict()
    return {name.replace(".base_layer", ""): tensor.clone() for name, tensor in state.items() if part in name}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_loss_falls_while_the_base_stays(backbone: Any, dataset: Any, run_config: Config) -> None:
    """A hundred steps fit five pictures better; the model's own weights are bit-identical afterwards."""
    before = weights(backbone)
    config = run_config(training={"steps": 100, "batch_size": 5}, optimizer={"lr": 1e-2}, adapter=ADAPTER)
    run = train(backbone, dataset, MSELoss(), config)
    assert sum(run.losses[-20:]) < 0.9 * sum(run.losses[:20])
    assert same(before, weights(backbone))
    assert all(tensor.abs().sum() > 0 for tensor in weights(backbone, "lora_B").values())


def test_run_leaves_the_adapter_and_a_record_of_its_base(
    backbone: Any, dataset: Any, run_config: Config, tmp_path: Path
) -> None:
    """No second copy of the model: not in the result, not in the checkpoints, not in the optimizer."""
    config = run_config(training={"save_every": 2}, adapter=ADAPTER)
    run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
    folder = tmp_path / "run"
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter",
        "checkpoints",
        "config.toml",
        "losses.jsonl",
        "tensorboard",
    ]
    assert sorted(p.name for p in (folder / "adapter").iterdir()) == [CARD, "pytorch_lora_weights.safetensors"]
    assert json.loads((folder / "adapter" / CARD).read_text()) == {
        "format": 1, "backbone": "fake", "options": {"seed": 0}, "base": "fake-model",
        "training": {"width": 16, "height": 16},
    }  # fmt: skip
    assert (run.adapter, run.model) == (folder / "adapter", folder)
    state = folder / "checkpoints" / "step-00000002"
    with safe_open(state / "trainable.safetensors", "pt") as opened:
        assert all("lora" in name for name in opened.keys())  # noqa: SIM118
    optimizer = torch.load(state / "optimizer.pt", weights_only=True)["optimizer"]
    assert len(optimizer["state"]) == len(weights(backbone, "lora")) == 4
    assert read_toml(folder / "config.toml")["adapter"] == {"rank": 2, "targets": ["into", "out"], "dropout": 0.0}


def test_the_seed_of_the_run_decides_its_adapter(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Equal settings, equal weights; another seed, others."""
    results = []
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        backbone = fresh()
        torch.manual_seed(len(results))
        train(backbone, dataset, MSELoss(), run_config(name, seed=seed, adapter=ADAPTER))
        results.append(weights(backbone, "lora_A"))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_a_run_does_not_mix_with_adapters_that_are_there(
    fresh: Any, dataset: Any, run_config: Config, tmp_path: Path
) -> None:
    """Neither a full run nor another adapter begins on a model that has one; nothing is written."""
    backbone = fresh()
    train(backbone, dataset, MSELoss(), run_config("first", adapter=ADAPTER))
    for name, sections in [("second", {"adapter": ADAPTER}), ("full", {})]:
        with pytest.raises(ConfigError, match=r"the model has adapters.*\(default\).*Pipeline\.merge_adapters"):
            train(backbone, dataset, MSELoss(), run_config(name, **sections))
        assert not (tmp_path / name).exists()


def test_targets_are_checked_before_a_folder_is_made(
    backbone: Any, dataset: Any, run_config: Config, tmp_path: Path
) -> None:
    """The message says what is near."""
    with pytest.raises(ConfigError, match="'ino' is the end of no layer's name in this model; near: into"):
        train(backbone, dataset, MSELoss(), run_config(adapter={"targets": ["ino"]}))
    assert not (tmp_path / "run").exists()


def test_an_adapter_cannot_be_resumed_as_another(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Its section is one of the settings that must not change."""
    train(fresh(), dataset, MSELoss(), run_config(adapter=ADAPTER))
    with pytest.raises(ConfigError, match=r"other settings than it began with: adapter\.rank"):
        train(fresh(), dataset, MSELoss(), run_config(adapter={**ADAPTER, "rank": 3}), resume=True)


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-flux"])
def test_checkpointing_of_gradients_changes_memory_only(model: str, tmp_path: Path) -> None:
    """With a frozen base no input needs a gradient; the recomputed blocks train the adapter all the same."""
    losses = []
    for checkpointing in (False, True):
        pipe = Pipeline.from_pretrained(model, device="cpu")
        run = pipe.train(
            dataset="sample-photos",
            dataset_options={"names": ["coffee"]},
            output_dir=tmp_path / str(checkpointing),
            steps=3,
            width=64,
            height=64,
            lr=1e-2,
            adapter_rank=2,
            gradient_checkpointing=checkpointing,
        )
        losses.append(run.losses)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] != losses[0][1]


def short(output_dir: Path, **adapter: Any) -> RunConfig:
    photos = {"name": "sample-photos", "options": {"names": ["coffee"]}}
    data = {"model": "tiny-sd3", "dataset": photos, "output_dir": str(output_dir), "adapter": adapter}
    sizes = {"data": {"width": 64, "height": 64}, "training": {"steps": 2}, "optimizer": {"lr": 1e-2}}
    return from_mapping(RunConfig, {**data, **sizes, "backbone": {"trained_size": 128}})


def test_the_folder_of_a_run_is_a_model(tmp_path: Path) -> None:
    """Base, options and adapter come from its record; the model in memory, which has the adapter on, draws the same."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", trained_size=128)
    run = pipe.run(short(tmp_path / "first", rank=2, alpha=5))
    again = Pipeline.from_pretrained(run.output_dir, device="cpu")
    assert list(pipe.adapters) == ["default"]
    assert list(again.adapters) == ["first"]
    assert again.backbone.defaults.size == 128
    settings: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seed": 3}
    pictures = [one.generate("a cup", **settings)[0] for one in (pipe, again)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    assert pictures[1].info["d4k"]["adapters"][0]["sha256"] == pipe.adapters["default"].sha256
    pipe.set_adapters({})
    assert pipe.generate("a cup", **settings)[0].tobytes() != pictures[0].tobytes()
    off = Pipeline.from_pretrained(run.output_dir, device="cpu", adapters={run.output_dir: 0.0})
    assert [used.scale for used in off.adapters.values()] == [0.0]


def test_a_frozen_base_is_held_in_the_precision_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bf16 the base needs two bytes a weight, while the adapter is trained in float32."""
    seen: dict[str, set[torch.dtype]] = {}

    def look(backbone: Any, *args: Any, **kwargs: Any) -> Any:
        run = train(backbone, *args, **kwargs)
        for name, parameter in backbone.trainable.named_parameters():
            seen.setdefault("adapter" if "lora" in name else "base", set()).add(parameter.dtype)
        return run

    monkeypatch.setattr(sys.modules["d4k.training.fine_tune"], "train", look)
    config = short(tmp_path / "run", rank=2)
    half = from_mapping(RunConfig, {**_plain(config), "training": {"steps": 2, "precision": "bf16"}})
    run = train_from_config(half, device="cpu")
    assert seen == {"base": {torch.bfloat16}, "adapter": {torch.float32}}
    assert len(run.losses) == 2


def test_a_run_in_memory_on_half_precision_says_what_to_set(tmp_path: Path) -> None:
    """With `precision` it trains and draws; without, the error names the setting, and no folder is made."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", dtype="bfloat16", trained_size=128)
    with pytest.raises(ConfigError, match=r"weights are bfloat16, and training\.precision = 'no' computes in float32"):
        pipe.run(short(tmp_path / "run", rank=2))
    assert not (tmp_path / "run").exists()
    half = {**_plain(short(tmp_path / "run", rank=2)), "training": {"steps": 1, "precision": "bf16"}}
    pipe.run(from_mapping(RunConfig, half))
    before = pipe.generate("a cup", width=64, height=64, steps=1)[0]
    pipe.merge_adapters()
    after = pipe.generate("a cup", width=64, height=64, steps=1)[0]
    assert (before.size, after.size) == ((64, 64), (64, 64))


def _plain(config: RunConfig) -> dict[str, Any]:
    return attrs.asdict(config)


def test_a_base_that_is_gone_is_named(tmp_path: Path) -> None:
    """With the way to use the adapter all the same."""
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    (folder / CARD).write_text(json.dumps({"format": 1, "base": "tiny-sd4"}))
    with pytest.raises(CheckpointError, match=r"was trained on 'tiny-sd4', which cannot be had: unknown model"):
        find_model(ModelRef(str(tmp_path / "run")))


def test_a_base_in_a_folder_is_recorded_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is found from anywhere."""
    Pipeline.from_pretrained("tiny-sd3", device="cpu").save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    write_card(tmp_path / "adapter", Card("sd3", base=ModelRef("base")))
    monkeypatch.chdir("/")
    source = find_model(ModelRef(str(tmp_path / "adapter")))
    assert (source.location, source.adapters) == (str(tmp_path / "base"), {str(tmp_path / "adapter"): 1.0})


def test_what_is_recorded_after_a_run_is_what_is_in_memory(tmp_path: Path) -> None:
    """A full run's folder replaces transformer and merged adapters, and is the base of an adapter trained after it."""
    common: dict[str, Any] = {"dataset": "sample-photos", "dataset_options": {"names": ["coffee"]}, "width": 64}
    common |= {"height": 64, "steps": 1, "save_every": 1}
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu")
    pipe.backbone.trainable.save_pretrained(tmp_path / "other")  # type: ignore[operator]
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", transformer=tmp_path / "other")
    pipe.train(**common, output_dir=tmp_path / "first", adapter_rank=2)
    pipe.merge_adapters()
    with pytest.raises(ConfigError, match="holds merged adapters .*: save_pretrained first, and load that"):
        pipe.train(**common, output_dir=tmp_path / "refused", adapter_rank=2)
    assert not (tmp_path / "refused").exists()
    pipe.train(**common, output_dir=tmp_path / "full")
    recipe = pipe.generate("a cup", width=64, height=64, steps=1)[0].info["d4k"]
    assert recipe["model"] == str(tmp_path / "full" / "model")
    assert not {"transformer", "adapters"} & recipe.keys()
    again = pipe.train(**{**common, "steps": 2}, output_dir=tmp_path / "full", resume=True)
    assert read_toml(again.output_dir / "config.toml")["transformer"] == str(tmp_path / "other")
    run = pipe.train(**common, output_dir=tmp_path / "second", adapter_rank=2)
    assert run.adapter is not None
    record = read_card(str(run.adapter))
    assert record.base == ModelRef(str(tmp_path / "full" / "model"))
    assert len(pipe.train(**{**common, "steps": 2}, output_dir=run.output_dir, adapter_rank=2, resume=True).losses) == 2


def test_a_model_takes_over_how_its_adapter_was_trained(tmp_path: Path) -> None:
    """Stride, temperature and shift hold beside `adapters=` as from the run's folder, and in what is merged from it."""
    options = {"downscale": 16, "temperature": "proportional"}
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", **options)
    photos = {"dataset": "sample-photos", "dataset_options": {"names": ["coffee"]}}
    run, merged = str(tmp_path / "run"), str(tmp_path / "merged")
    pipe.train(**photos, output_dir=run, adapter_rank=2, steps=1, width=64, height=64, shift=2.5)  # type: ignore[arg-type]
    result = CliRunner().invoke(main, ["adapter", "merge", "tiny-sd3", run, "--output", merged])
    assert result.exit_code == 0, result.output
    settings: dict[str, Any] = {"width": 64, "height": 64, "steps": 1}
    expected = Pipeline.from_pretrained(run, device="cpu").generate("a cup", **settings)[0]
    beside = Pipeline.from_pretrained("tiny-sd3", device="cpu", adapters=[run])
    picture = beside.generate("a cup", **settings)[0]
    assert picture.tobytes() == expected.tobytes()
    assert picture.info["d4k"]["shift"] == 2.5
    assert read_card(merged).training == read_card(f"{run}/adapter").training
    assert options.items() <= read_card(merged).options.items()
    other = Pipeline.from_pretrained("tiny-sd3", device="cpu", adapters=[run], downscale=8)
    with pytest.warns(UserWarning, match=r"samples otherwise than it was trained: downscale 8, trained 16\."):
        other.generate("a cup", **settings)
    later = Pipeline.from_pretrained("tiny-sd3", device="cpu")
    later.load_adapter(run)
    with pytest.warns(UserWarning, match="temperature trained, trained proportional; downscale 8, trained 16"):
        later.generate("a cup", **settings)
    off = Pipeline.from_pretrained("tiny-sd3", device="cpu", adapters={run: 0.0})
    assert off.backbone.latent.downscale == 8


def test_an_adapter_that_was_trained_otherwise_than_its_model_is_said_to(tmp_path: Path) -> None:
    """The model's own record counts."""
    photos = {"dataset": "sample-photos", "dataset_options": {"names": ["coffee"]}}
    for name, shift, rank in (("model", 2.0, {}), ("run", 3.0, {"adapter_rank": 2})):
        pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu")
        size: dict[str, Any] = {"steps": 1, "width": 64, "height": 64, "shift": shift}
        pipe.train(**photos, output_dir=tmp_path / name, **size, **rank)  # type: ignore[arg-type]
    pipe = Pipeline.from_pretrained(tmp_path / "model", device="cpu")
    with pytest.warns(UserWarning, match=r"adapter .*run was trained with shift 3.0 \(the model with 2.0\)"):
        pipe.load_adapter(tmp_path / "run")
    assert pipe.generate("a cup", width=64, height=64, steps=1)[0].info["d4k"]["shift"] == 2.0


def test_the_record_of_a_base_names_its_denoiser_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that was trained on another `transformer` draws with it again, and is found from anywhere."""
    monkeypatch.chdir(tmp_path)
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu")
    for parameter in pipe.backbone.trainable.parameters():
        parameter.data *= 1.05
    pipe.backbone.trainable.save_pretrained("other")  # type: ignore[operator]
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", transformer="other")
    photos = {"dataset": "sample-photos", "dataset_options": {"names": ["coffee"]}}
    pipe.train(**photos, output_dir="run", adapter_rank=2, steps=1, width=64, height=64)  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    again = Pipeline.from_pretrained(tmp_path / "run", device="cpu")
    pictures = [one.generate("a cup", width=64, height=64, steps=1)[0].tobytes() for one in (pipe, again)]
    assert find_model(ModelRef(str(tmp_path / "run"))).transformer == str(tmp_path / "other")
    assert pictures[0] == pictures[1]


def test_the_record_of_a_base_is_asked_for_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Revision and variant are passed on; another variant that the user names wins."""
    from d4k.models import card, find

    (tmp_path / "adapter").mkdir()
    write_card(tmp_path / "adapter", Card("sd3", base=ModelRef("owner/name", "v2", "fp16")))
    asked = []

    def fetch(model: str, name: str, revision: str | None = None) -> Any:
        asked.append((model, revision))
        return None

    monkeypatch.setattr(card, "fetch_file", fetch)
    monkeypatch.setattr(find, "_detect", lambda model, revision: "sd3")
    source = find_model(ModelRef(str(tmp_path)))
    assert (source.location, source.revision, source.variant) == ("owner/name", "v2", "fp16")
    assert asked == [("owner/name", "v2")]
    assert find_model(ModelRef(str(tmp_path), variant="bf16")).variant == "bf16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "adapter.rank must be a whole number of at least 1, got 0"),
        ({"alpha": 0}, "adapter.alpha must be a number above 0, got 0"),
        ({"dropout": 1}, "adapter.dropout must be a number of at least 0 and below 1, got 1"),
        ({"targets": "to_q"}, "adapter.targets must be a list of words, not empty, got 'to_q'"),
        ({"targets": []}, "adapter.targets must be a list of words, not empty"),
        ({"ranks": 4}, "unknown key 'adapter.ranks'; did you mean 'rank'"),
        (16, "adapter must be a table, got 16"),
    ],
)
def test_settings_out_of_range_are_refused(settings: Any, message: str) -> None:
    """In full, as of any other section."""
    data = {"model": "m", "dataset": {"name": "d"}, "output_dir": "o", "adapter": settings}
    with pytest.raises(ConfigError, match=message):
        from_mapping(RunConfig, data)


def test_an_empty_section_is_an_adapter_with_the_defaults() -> None:
    """`[adapter]` alone is enough; without it the weights are trained."""
    data = {"model": "m", "dataset": {"name": "d"}, "output_dir": "o"}
    assert from_mapping(RunConfig, {**data, "adapter": {}}).adapter == AdapterSettings(16, None, None, 0.0)
    assert from_mapping(RunConfig, data).adapter is None
