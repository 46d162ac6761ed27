"""Records that others may have written: any value at any key ends in success or in one of d4k's errors."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from d4k import CheckpointError, D4KError, DataError, create
from d4k.adapters import Adapter, add_adapter, load_adapter, read_adapter, trained_adapter, write_adapter
from d4k.config import AdapterSettings
from d4k.files import parse_json, read_json_line
from d4k.images import read_recipe
from d4k.models import CARD, ModelRef, find_model
from d4k.plugins import registry
from d4k.records import CardRecord, RecipeRecord, read_record
from d4k.sampling import check_recipe, settings_from

DEEP = "[" * 1000 + "]" * 1000
ODD = [
    "null", "true", "0", "-1", "5", "1.5", "1e308", "1e-308", "1e999", "-0.0", "9" * 30, "9" * 5000, "NaN", "-Infinity",
    '""', '"text"', '"1"', '"\\ud800"', '"a\\u0000b"', json.dumps("x" * 5000), "[]", "[1]", "[null, null]", "{}",
    '{"source": "x"}', '{"x": NaN}', '{"\\ud800": 1}', "[[1, 2]]", DEEP, "",
]  # fmt: skip
"""JSON, and what Python's reader takes for it, in place of a value; empty removes the key."""

MARK = "<here>"


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a record, and to the record itself."""
    yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*above, key))


def changed(record: Mapping[str, Any]) -> st.SearchStrategy[str]:
    """JSON of a record with another value at one of its keys, or a key more."""
    ways = [*places(record), ("new",), ("adapters",), ("source",)]
    return st.tuples(st.sampled_from(ways), st.sampled_from(ODD)).map(lambda chosen: put(record, *chosen))


def put(record: Any, way: tuple[Any, ...], odd: str) -> str:
    """JSON of a record with the text `odd` in one place."""
    if not way:
        return odd
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in way[:-1]:
        inner = inner[key]
    if odd == "":
        inner = inner if isinstance(inner, dict) else {}
        inner.pop(way[-1], None)
    else:
        inner[way[-1]] = MARK
    return json.dumps(copy).replace(f'"{MARK}"', odd)


RECIPE = {
    "prompt": "a cat", "seed": 1, "model": "tiny-sd3", "width": 64, "height": 64, "steps": 2, "guidance": 1.0,
    "shift": 3.0, "negative_prompt": "", "options": {"downscale": 8}, "revision": "main", "variant": "fp16",
    "transformer": "x", "dtype": "float32", "device": "cpu", "quantize": "int8", "attention": "native", "compile": True,
    "step_cache": "first-block", "versions": {"d4k": "0.1.0", "torch": "2"},
    "adapters": [{"name": "a", "source": "a.safetensors", "sha256": "00", "scale": 1.0}],
}  # fmt: skip
STAGE = {"width": 32, "height": 32, "steps": 2, "guidance": 1.0, "shift": "scheduler", "restart": 1.0}
STAGED = {
    **RECIPE, "restart": 0.5, "alignment": 0.3, "cutoff": 0.25, "upscaler": "bicubic", "upscaler_options": {"x": 1},
    "upscaler_settings": {"sha256": "00"}, "earlier": [STAGE, {**STAGE, "width": 48}], "image": "a.png",
    "image_sha256": "0" * 64, "guide": "module.Guide",
}  # fmt: skip


def picture(file: Path, text: str) -> Path:
    chunk = PngInfo()
    chunk.add_itxt("d4k", text)
    Image.new("RGB", (1, 1)).save(file, pnginfo=chunk)
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@settings(max_examples=400)
@given(text=changed(RECIPE) | changed(STAGED))
def test_any_recipe_is_good_or_a_data_error(folder: Path, text: str) -> None:
    """What is accepted has the types that sampling needs."""
    file = picture(folder / "a.png", text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other versions
        try:
            recipe = check_recipe(read_recipe(file), file)
        except DataError:
            return
    assert isinstance(recipe["seed"], int)
    assert isinstance(recipe["prompt"], str)
    assert 0 <= recipe["guidance"] < float("inf")
    assert isinstance(recipe.get("options", {}), dict)
    assert all(isinstance(each["scale"], int | float) for each in recipe.get("adapters", []))
    if recipe.get("shift") is not None:
        staged = settings_from(recipe)
        assert all(0 < stage.restart <= 1 and stage.steps >= 1 for stage in staged.stages)
        assert 0 <= staged.alignment <= 1
    assert isinstance(recipe.get("image") or "", str)


@pytest.mark.parametrize(
    ("key", "odd", "said"),
    [
        ("seed", '"7"', "seed must be a whole number from 0 to"),
        ("seed", "9" * 30, "seed must be a whole number from 0 to"),
        ("options", "null", "options must be a table"),
        ("options", '{"source": "x"}', "options cannot hold 'source'"),
        ("width", "64.0", "width must be a whole number"),
        ("shift", '"much"', "shift must be a number above 0"),
        ("adapters", '[{"source": "x"}]', r"adapters\[0\]: missing key 'sha256'"),
        ("guidance", "NaN", "it holds NaN, which is no number"),
        ("guidance", "9" * 5000, "an integer of 5000 digits"),
        ("prompt", '"\\ud800"', "half a character"),
        ("restart", "0", "restart must be a number above 0 and at most 1"),
        ("alignment", "1.5", "alignment must be a number of at least 0 and at most 1"),
        ("cutoff", '"low"', "cutoff must be a number of at least 0 and at most 1"),
        ("upscaler", "[]", "upscaler must be a string that is not empty"),
        ("upscaler_options", "[1]", "upscaler_options must be a table of options"),
        ("earlier", "{}", "earlier must be a list"),
        ("earlier", '[{"width": 1}]', r"earlier\[0\]: missing key 'height'"),
        ("image", "5", "image must be a string"),
        ("image", '"a\\u0000b"', "image holds a NUL character"),
        ("image_sha256", '"00"', "image_sha256 must be 64 hexadecimal digits"),
        ("guide", "1", "guide must be a string"),
        ("options", DEEP, "nested too deep"),
    ],
)
def test_the_message_names_the_key(folder: Path, key: str, odd: str, said: str) -> None:
    """Each in one sentence."""
    file = picture(folder / "b.png", put(RECIPE, (key,), odd))
    with pytest.raises(DataError, match=said) as caught:
        check_recipe(read_recipe(file), file)
    assert "\n" not in str(caught.value)


def test_the_schedulers_own_shift_can_be_recorded() -> None:
    """By its word."""
    assert read_record(RecipeRecord, {**RECIPE, "shift": "scheduler"}, "x", DataError).shift == "scheduler"


def test_keys_of_a_newer_d4k_are_passed_over() -> None:
    """At every level; what an older d4k must not miss raises the format."""
    card = {"format": 1, "training": {"width": 64, "novel": 1}, "other": [1]}
    assert read_record(CardRecord, card, "x", CheckpointError).training.width == 64
    with pytest.raises(CheckpointError, match="x: format must be a whole number from 1 to 1, got 2"):
        read_record(CardRecord, {"format": 2}, "x", CheckpointError)


CARD_TEXT = {
    "format": 1, "backbone": "sd3", "options": {"guidance": 1.5, "steps": 28, "trained_size": 256, "downscale": 8},
    "training": {"width": 64, "height": 64, "guidance": 1.0, "shift": 3.0, "options": {"downscale": 8}},
}  # fmt: skip
BASED = {**CARD_TEXT, "base": "tiny-sd3", "revision": None, "variant": "fp16", "transformer": "tiny-sd3"}


def link(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        Path(target).symlink_to(source)
    else:
        shutil.copyfile(source, target)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `tiny-sd3` whose weights are links."""
    tiny = registry().get("checkpoint", "tiny-sd3").target
    return Path(shutil.copytree(tiny, tmp_path_factory.mktemp("models") / "model", copy_function=link))


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(text=changed(CARD_TEXT) | changed(BASED))
def test_any_card_is_found_or_refused(model: Path, text: str) -> None:
    """`d4k.json` beside a model: from the name to the backbone that would load it."""
    before = (model / CARD).read_bytes()
    (model / CARD).write_text(text)
    try:
        found = find_model(ModelRef(str(model)))
        create("backbone", found.backbone, source=found.location, **found.options)
    except D4KError:
        pass
    finally:
        (model / CARD).write_bytes(before)


def test_a_card_that_names_itself_as_its_base_is_refused(tmp_path: Path) -> None:
    """Itself, or in a circle of two."""
    for name, base in (("a", "a"), ("b", "c"), ("c", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / CARD).write_text(json.dumps({"format": 1, "base": str(tmp_path / base)}))
    for name in "abc":
        with pytest.raises(CheckpointError, match="builds on itself"):
            find_model(ModelRef(str(tmp_path / name)))


LAYER = "transformer_blocks.0.attn.to_q"
LORA = {
    f"transformer.{key}": value
    for key, value in {
        "r": 4, "lora_alpha": 8, "target_modules": ["to_q"], "rank_pattern": {"^x": 2}, "alpha_pattern": {"y.z": 1.5},
        "use_rslora": False, "use_dora": False, "lora_bias": False, "bias": "none", "lora_dropout": 0.0,
        "init_lora_weights": True, "peft_type": "LORA", "exclude_modules": None, "layers_pattern": None,
        "layers_to_transform": None, "modules_to_save": None, "fan_in_fan_out": False,
    }.items()
}  # fmt: skip


def tiny_denoiser() -> Any:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=4, in_channels=4, out_channels=4, num_layers=1, num_attention_heads=1, attention_head_dim=8,
        caption_projection_dim=8, pooled_projection_dim=8, joint_attention_dim=8, pos_embed_max_size=4,
    )  # fmt: skip


def lora_file(file: Path, metadata: str) -> Path:
    tensors = {
        f"transformer.{LAYER}.lora_A.weight": torch.ones(4, 8), f"transformer.{LAYER}.lora_B.weight": torch.ones(8, 4),
    }  # fmt: skip
    save_file(tensors, file, metadata={"lora_adapter_metadata": metadata})
    return file


@settings(max_examples=250)
@given(text=changed(LORA).filter(lambda text: "\0" not in text))
def test_any_metadata_of_an_adapter_loads_or_is_refused(folder: Path, text: str) -> None:
    """Read, put into a denoiser and written again in both layouts."""
    file = lora_file(folder / "x.safetensors", text)
    denoiser = tiny_denoiser()
    try:
        adapter = read_adapter(file)
        load_adapter(denoiser, adapter, "x")
    except D4KError:
        return
    for layout in ("diffusers", "comfyui"):
        write_adapter(adapter, folder / "y.safetensors", layout=layout)  # type: ignore[arg-type]
        assert read_adapter(folder / "y.safetensors").ranks == {LAYER: 4}


HOSTILE = "((\\w+)+)+!"
"""Takes hours on a name of thirty letters."""


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("pattern", [HOSTILE, "(", "a|b", "to_q$", ".*", "[a]", "a b"])
def test_patterns_of_a_file_are_never_run(tmp_path: Path, key: str, pattern: str) -> None:
    """Only names of layers are taken."""
    stored = {**LORA, f"transformer.{key}": {pattern: 4}}
    with pytest.raises(CheckpointError, match=f"{key} must name layers .* d4k runs no patterns that a file brings"):
        read_adapter(lora_file(tmp_path / "x.safetensors", json.dumps(stored)))


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "layers_pattern", "layers_to_transform"])
def test_what_chooses_layers_in_a_file_is_not_handed_on(tmp_path: Path, key: str) -> None:
    """The tensors say which layers there are; neither reading nor loading nor writing hands the pattern on."""
    stored = {**LORA, f"transformer.{key}": HOSTILE}
    adapter = read_adapter(lora_file(tmp_path / "x.safetensors", json.dumps(stored)))
    assert HOSTILE not in str(adapter.settings)
    denoiser = tiny_denoiser()
    load_adapter(denoiser, adapter, "x")
    assert HOSTILE not in str(denoiser.peft_config)
    assert denoiser.get_submodule(LAYER).scaling == {"x": 2.0}


def test_names_mean_what_peft_takes_them_for(tmp_path: Path) -> None:
    """The end of a name, `^` for the whole of it, the first that fits; dots are dots."""
    denoiser = tiny_denoiser()
    add_adapter(denoiser, AdapterSettings(rank=4, alpha=8))
    tensors = trained_adapter(denoiser).tensors
    patterns = {"to_q": 2.0, f"^{LAYER.replace('to_q', 'to_k')}": 3.0, "to.v": 5.0, "attn.to_v": 6.0, "^to_out.0": 7.0}
    stored = {"r": 4, "lora_alpha": 8, "target_modules": ["to_q"], "alpha_pattern": patterns}
    write_adapter(Adapter("", tensors, stored), tmp_path / "x.safetensors")
    loaded = tiny_denoiser()
    load_adapter(loaded, read_adapter(tmp_path / "x.safetensors"), "x")
    scaling = {name: loaded.get_submodule(LAYER.replace("to_q", name)).scaling["x"]
               for name in ("to_q", "to_k", "to_v", "to_out.0")}  # fmt: skip
    assert scaling == {"to_q": 0.5, "to_k": 0.75, "to_v": 1.5, "to_out.0": 2.0}


CONFIGS = [
    "model_index.json", "scheduler/scheduler_config.json", "transformer/config.json", "vae/config.json",
    "text_encoder/config.json", "text_encoder_3/config.json", "tokenizer/tokenizer_config.json",
]  # fmt: skip


@st.composite
def changed_files(draw: st.DrawFn) -> tuple[str, str]:
    """One of the configuration files of `tiny-sd3`, with another value at one of its keys."""
    name = draw(st.sampled_from(CONFIGS))
    record = json.loads((Path(registry().get("checkpoint", "tiny-sd3").target) / name).read_text())
    return name, draw(changed(record))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(chosen=changed_files())
@example(("transformer/config.json", '{"_class_name": "SD3Transformer2DModel", "num_layers": 1000000000}'))
@example(("scheduler/scheduler_config.json", '{"num_train_timesteps": 1000000000000}'))
def test_any_configuration_loads_or_is_refused(model: Path, device: str, chosen: tuple[str, str]) -> None:
    """Of the model, its scheduler and its parts; on the meta device, where planning reads them, too."""
    from d4k import Placement

    name, text = chosen
    before = (model / name).read_bytes()
    (model / name).write_text(text)
    try:
        found = find_model(ModelRef(str(model)))
        backbone = create("backbone", found.backbone, source=found.location, **found.options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            backbone.load(Placement(torch.device(device), torch.float32))
    except D4KError:
        pass
    finally:
        (model / name).write_bytes(before)


@given(line=changed({"text": "a cat", "seed": 1, "width": 64, "id": "x"}))
def test_any_line_is_an_object_or_a_data_error(line: str) -> None:
    """Nothing else comes out of it."""
    with contextlib.suppress(DataError):
        assert isinstance(read_json_line(line, Path("x.jsonl"), 7), dict)


@pytest.mark.parametrize("line", ["", "[]", "{", '{"seed": ' + "9" * 5000 + "}", DEEP])
def test_a_bad_line_is_named(line: str) -> None:
    """With its file, in words and as attributes."""
    with pytest.raises(DataError, match=r"x\.jsonl, line 7") as caught:
        read_json_line(line, Path("x.jsonl"), 7)
    assert (caught.value.path, caught.value.line) == (Path("x.jsonl"), 7)


def test_a_byte_order_mark_is_no_fault() -> None:
    """As some editors write it, in bytes and in text."""
    assert parse_json(b"\xef\xbb\xbf[1]", "x", DataError) == parse_json("\ufeff[1]", "x", DataError) == [1]
