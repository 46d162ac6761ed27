"""Settings: TOML in, frozen classes, a resolved copy out; every wrong key and value is named."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest
import torch
from diffusers.optimization import get_scheduler
from hypothesis import given
from hypothesis import strategies as st

from d4k import config as module
from d4k import flow
from d4k.config import Component, RunConfig, from_mapping, read_toml, with_settings, write_toml
from d4k.errors import ConfigError

LEAST: dict[str, Any] = {"model": "m", "dataset": {"name": "folder"}, "output_dir": "out"}
FULL = """
model = "m"
output_dir = "out"
seed = 3
[backbone]
positions = "interpolate"
[dataset]
name = "folder"
[dataset.options]
path = "photos"
[flow]
density = "uniform"
guidance = 3.5
[training]
steps = 7
"""


def test_smallest_configuration_takes_defaults() -> None:
    """Model, dataset and output folder are all that must be said."""
    config = from_mapping(RunConfig, LEAST)
    assert config.dataset == Component("folder")
    assert (config.loss.name, config.seed, config.training.steps, config.data.width) == ("mse", 0, 1000, None)


def test_toml_becomes_nested_settings(tmp_path: Path) -> None:
    """Tables are sections, option tables stay mappings."""
    path = tmp_path / "run.toml"
    path.write_text(FULL)
    config = from_mapping(RunConfig, read_toml(path))
    assert dict(config.dataset.options) == {"path": "photos"}
    assert (config.flow.density, config.flow.guidance, config.training.steps) == ("uniform", 3.5, 7)
    assert dict(config.backbone) == {"positions": "interpolate"}


def test_resolved_copy_reads_back_equal(tmp_path: Path) -> None:
    """Writing and reading gives the same settings; None, which TOML lacks, is left out."""
    path = tmp_path / "run.toml"
    path.write_text(FULL)
    config = from_mapping(RunConfig, read_toml(path))
    write_toml(config, tmp_path / "copy.toml")
    assert from_mapping(RunConfig, read_toml(tmp_path / "copy.toml")) == config
    assert "width" not in (tmp_path / "copy.toml").read_text()
    assert "batch_size = 1" in (tmp_path / "copy.toml").read_text()


def test_table_that_sets_some_of_a_default_keeps_the_rest() -> None:
    """Options of the default loss need not name it; another name does not take over its options."""
    assert from_mapping(RunConfig, {**LEAST, "loss": {"options": {"some": 2}}}).loss == Component("mse", {"some": 2})
    assert from_mapping(RunConfig, {**LEAST, "loss": {"name": "wavelet"}}).loss == Component("wavelet")


def test_sections_that_are_objects_already_are_taken() -> None:
    """Python callers may pass settings classes instead of tables."""
    config = from_mapping(RunConfig, {**LEAST, "dataset": Component("mine")})
    assert config.dataset.name == "mine"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({**LEAST, "modle": 1}, r"unknown key 'modle'; did you mean 'model'\? Known: model, dataset, output_dir, loss"),
        ({**LEAST, "zebra": 1}, r"unknown key 'zebra'\. Known: model"),
        ({**LEAST, "training": {"step": 1}}, r"unknown key 'training.step'; did you mean 'steps'\?"),
        ({**LEAST, "dataset": {"name": "x", "option": {}}}, r"unknown key 'dataset.option'; did you mean 'options'\?"),
        ({"model": "m"}, r"missing key 'dataset'"),
        ({**LEAST, "dataset": {}}, r"missing key 'dataset.name'"),
        ({**LEAST, "training": 5}, r"training must be a table, got 5"),
        ({**LEAST, "backbone": 5}, r"backbone must be a table of options, got 5"),
        ({**LEAST, "model": ""}, r"model must be a string that is not empty, got ''"),
        ({**LEAST, "model": 3}, r"model must be a string that is not empty, got 3"),
        ({**LEAST, "seed": -1}, r"seed must be a whole number of at least 0, got -1"),
        ({**LEAST, "seed": True}, r"seed must be a whole number of at least 0, got True"),
        ({**LEAST, "training": {"steps": 0}}, r"training.steps must be a whole number of at least 1, got 0"),
        ({**LEAST, "training": {"steps": 1.5}}, r"training.steps must be a whole number of at least 1, got 1.5"),
        ({**LEAST, "training": {"clip": "1"}}, r"training.clip must be a number of at least 0, got '1'"),
        ({**LEAST, "training": {"clip": True}}, r"training.clip must be a number of at least 0, got True"),
        ({**LEAST, "training": {"precision": "fp8"}}, r"training.precision must be one of no, bf16, fp16, got 'fp8'"),
        ({**LEAST, "training": {"gradient_checkpointing": 1}}, r"gradient_checkpointing must be true or false, got 1"),
        (
            {**LEAST, "training": {"caption_dropout": 1.1}},
            r"training.caption_dropout must be a number of at least 0 and at most 1, got 1.1",
        ),
        ({**LEAST, "optimizer": {"lr": 0}}, r"optimizer.lr must be a number above 0, got 0"),
        ({**LEAST, "optimizer": {"name": "a b:C"}}, r"optimizer.name must be one of .*, got 'a b:C'"),
        ({**LEAST, "flow": {"shift": "scheduler"}}, r"flow.shift must be a number above 0.*; 'auto' is allowed too"),
        ({**LEAST, "flow": {"shift": 0}}, r"flow.shift must be a number above 0, got 0; 'auto' is allowed too"),
        (
            {**LEAST, "data": {"buckets": "on"}},
            r"data.buckets must be one of off, auto, or a list of sizes .*, got 'on'",
        ),
        ({**LEAST, "data": {"buckets": ["4096"]}}, r"data.buckets must be .* such as 3072x4096, got \('4096',\)"),
        ({**LEAST, "data": {"buckets": []}}, r"data.buckets must be .* such as 3072x4096, got \(\)"),
        ({**LEAST, "validation": {"sigmas": [0.5, 2]}}, r"validation.sigmas must be a list of numbers from 0 to 1"),
        ({**LEAST, "validation": {"prompts": "a cat"}}, r"validation.prompts must be a list of words, got 'a cat'"),
        ({**LEAST, "ema": {"decay": 1}}, r"ema.decay must be a number of at least 0 and below 1, got 1"),
        (
            {**LEAST, "parallel": {"strategy": "zero2"}},
            r"parallel.strategy must be one of auto, ddp, fsdp2, got 'zero2'",
        ),
        (
            {**LEAST, "optimizer": {"name": "sgd"}},
            r"optimizer.name must be one of adamw, adamw-8bit, .*, muon, or a class as module:Class, got 'sgd'",
        ),
        (
            {**LEAST, "optimizer": {"beta1": 1.0}},
            r"optimizer.beta1 must be a number of at least 0 and below 1, got 1.0",
        ),
        ({**LEAST, "schedule": {"name": "x"}}, r"schedule.name must be one of constant, .*, got 'x'"),
        ({**LEAST, "schedule": {"warmup_steps": 5}}, r"schedule.warmup_steps has no effect on 'constant'; choose"),
        ({**LEAST, "schedule": {"warmup_steps": -1}}, r"schedule.warmup_steps must be a whole number of at least 0"),
        ({**LEAST, "data": {"width": 0}}, r"data.width must be a whole number of at least 1, got 0"),
        ({**LEAST, "data": {"crop": "left"}}, r"data.crop must be one of center, random, got 'left'"),
        (
            {**LEAST, "flow": {"density": "x"}},
            r"flow.density must be one of uniform, logit-normal, mode, beta, got 'x'",
        ),
        (
            {**LEAST, "flow": {"mode_scale": 2.0}},
            r"flow.mode_scale must be a number of at least -1 and at most 1.75194, got 2.0",
        ),
        ({**LEAST, "flow": {"mode_scale": -1.1}}, r"flow.mode_scale must be .*, got -1.1"),
        ({**LEAST, "flow": {"mean": float("inf")}}, r"flow.mean must be a finite number, got inf"),
        ({**LEAST, "flow": {"guidance": -1}}, r"flow.guidance must be a number of at least 0, got -1"),
        ({**LEAST, "optimizer": {"lr": float("nan")}}, r"optimizer.lr must be a number above 0, got nan"),
    ],
)
def test_wrong_settings_are_named_in_full(data: dict[str, Any], message: str) -> None:
    """The message names the key with its section, what is allowed and what was given."""
    with pytest.raises(ConfigError, match=message):
        from_mapping(RunConfig, data)


@pytest.mark.parametrize("cls", [cls for _, cls in inspect.getmembers(module, attrs.has)], ids=lambda cls: cls.__name__)
def test_settings_are_frozen_and_every_field_is_documented(cls: Any) -> None:
    """A key that is public is described; no settings object changes after it was made."""
    documented = inspect.getdoc(cls) or ""
    for attribute in attrs.fields(cls):
        assert f"{attribute.name}:" in documented, f"{cls.__name__}.{attribute.name} is not documented"
    assert cls.__setattr__ is not object.__setattr__


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    """A missing file, a folder, broken TOML and binary data are ConfigErrors that name the file."""
    (tmp_path / "a.toml").write_text("x = ")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    for name, reason in [("none.toml", "No such file"), (".", "Is a directory"), ("a.toml", "not valid TOML"),
                         ("b.toml", "not valid TOML")]:  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            read_toml(tmp_path / name)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    """Some editors begin a file with one."""
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbfseed = 3\n")
    assert read_toml(tmp_path / "run.toml") == {"seed": 3}


@pytest.mark.parametrize(
    ("content", "line"),
    [(b"a = 1\nb = \n", 2), (b"a = 1\nb = 2\nc = '\xff'\n", 3), (b"a = 1\n\nb = " + b"9" * 5000, 3)],
)
def test_errors_in_a_file_name_their_line(tmp_path: Path, content: bytes, line: int) -> None:
    """Broken TOML, another encoding, and a number of more digits than Python reads."""
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"run\.toml is not valid TOML: .*line {line}\b"):
        read_toml(tmp_path / "run.toml")


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    """In a file, and in a setting."""
    deep = "[" * 5000
    (tmp_path / "run.toml").write_text(f"a = {deep}")
    with pytest.raises(ConfigError, match="nested too deeply"):
        read_toml(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="cannot read the value"):
        with_settings({}, [f"a={deep}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            f"seed={10**400}",
            r"at least 0 and below 2\*\*63, got a whole number of about 400",
        ),
        (f"seed=0x{'f' * 5000}", "seed must be .* got a whole number of about 6020 digits"),
        (f"training.steps={2**63}", "training.steps must be a whole number of at least 1 and below"),
        (f"optimizer.lr={10**400}", "optimizer.lr must be a number above 0 that float32 holds .* about 400 digits"),
        (
            "optimizer.lr=1e300",
            r"a number above 0 that float32 holds \(1.2e-38 to 3.4e\+38\), got",
        ),
        ("flow.shift=1e-308", "flow.shift must be a number above 0 that float32 holds"),
        (f"loss.options.delta={10**400}", "options.delta must be a number that float32 holds .* about 400 digits"),
        ("backbone.sizes=[1, [1e39]]", "backbone.sizes must be a number that float32 holds"),
        ("seed=" + "9" * 5000, "cannot read the value '?999.*digits"),
    ],
)
def test_numbers_that_nothing_can_compute_with_are_refused(setting: str, message: str) -> None:
    """In one short line, also where Python does not write the number out."""
    with pytest.raises(ConfigError, match=message) as caught:
        from_mapping(RunConfig, with_settings(LEAST, [setting]))
    assert len(str(caught.value)) < 400


def test_an_option_of_the_default_loss_needs_no_name() -> None:
    """Set alone, on the command line or in a file."""
    settings = with_settings(LEAST, ["loss.options.some=2"])
    assert from_mapping(RunConfig, settings).loss == Component("mse", {"some": 2})


def test_each_list_of_words_has_one_home() -> None:
    """What the settings allow is what computes with it knows."""
    assert get_args(flow.Density) == module.DENSITIES
    assert get_args(flow.Weighting) == module.WEIGHTINGS
    for density in module.DENSITIES:
        assert flow.sample_sigma(1, density=density).shape == (1,)
    for weighting in module.WEIGHTINGS:
        assert flow.sigma_weight(torch.ones(1), weighting).shape == (1,)
    for dtype in module.PRECISIONS.values():
        assert isinstance(getattr(torch, dtype), torch.dtype)
    for name in module.SCHEDULES:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        assert get_scheduler(name, optimizer, num_warmup_steps=0, num_training_steps=5).get_last_lr()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model=a\nseed=1", {"model": "a\nseed=1"}),
        ("seed=1", {"seed": 1}),
        ("optimizer.lr = 1e-5", {"optimizer": {"lr": 1e-5}}),
        ("model=tiny-sd3", {"model": "tiny-sd3"}),
        ('model="a = b"', {"model": "a = b"}),
        ("model=a=b", {"model": "a=b"}),
        ("data.flip=true", {"data": {"flip": True}}),
        ("loss.options.weights=[1, 2]", {"loss": {"options": {"weights": [1, 2]}}}),
    ],
)
def test_settings_are_toml_or_plain_words(setting: str, expected: dict[str, Any]) -> None:
    """`key=value` makes its tables as needed."""
    assert with_settings({}, [setting]) == expected


def test_settings_override_one_key_and_keep_the_rest() -> None:
    """The last one counts; neighbours stay; the mapping given is not changed."""
    before = {"training": {"steps": 5, "clip": 1.0}, "loss": {"options": {"levels": 1}}}
    after = with_settings(before, ["training.steps=6", "training.steps=7", "loss.options.levels=2"])
    assert after == {"training": {"steps": 7, "clip": 1.0}, "loss": {"options": {"levels": 2}}}
    assert before == {"training": {"steps": 5, "clip": 1.0}, "loss": {"options": {"levels": 1}}}


@pytest.mark.parametrize("setting", ["steps", "=5", " =5", ""])
def test_settings_that_are_no_settings_are_refused(setting: str) -> None:
    """The message shows the form."""
    with pytest.raises(ConfigError, match=r"cannot read the setting .* write it as key=value"):
        with_settings({}, [setting])


def test_a_value_cannot_become_a_table() -> None:
    """`seed.x=1` beside `seed=3` is a mistake, not a replacement."""
    with pytest.raises(ConfigError, match="cannot set 'seed.x': 'seed' is a value, not a table"):
        with_settings({"seed": 3}, ["seed.x=1"])


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.booleans() | st.text(st.characters(codec="ascii"))))
def test_applying_no_settings_changes_nothing(data: dict[str, Any]) -> None:
    """An empty list of settings is the identity."""
    assert with_settings(data, []) == data
