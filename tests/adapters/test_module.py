"""Adapters in the tiny models: as diffusers computes with the same file; added up, weighed, merged, refused whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from attrs import evolve
from click.testing import CliRunner
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch import Tensor, nn

from d4k import CheckpointError, ConfigError, Pipeline, UnknownNameError
from d4k.adapters import TARGETS, Adapter, add_adapter, loaded_adapters, read_adapter, trained_adapter, write_adapter
from d4k.cli import main
from d4k.config import AdapterSettings
from d4k.images import save_picture
from d4k.models import Card, ModelRef, find_model, write_card
from d4k.sampling import SamplingSettings, sample_latents, starting_noise

STOCK = {"tiny-sd3": diffusers.StableDiffusion3Pipeline, "tiny-flux": diffusers.FluxPipeline}
Make = Callable[..., Path]


@cache
def loaded(model: str) -> Pipeline:
    return Pipeline.from_pretrained(model, device="cpu", text_tokens=24)


def bare(pipe: Pipeline) -> Pipeline:
    """Without adapters, as it was loaded."""
    if loaded_adapters(pipe.backbone.trainable):
        pipe.backbone.trainable.unload_lora()  # type: ignore[operator]
    pipe.loaded = evolve(pipe.loaded, adapters={}, merged=())
    return pipe


@pytest.fixture(params=STOCK)
def pipe(request: pytest.FixtureRequest) -> Pipeline:
    """A model of each backbone, without adapters."""
    return bare(loaded(request.param))


@pytest.fixture
def one() -> Pipeline:
    """A model of one of them, for what does not depend on it."""
    return bare(loaded("tiny-sd3"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(pipe, "name", rank=…)`: the file of an adapter that visibly changes what the model draws."""

    def do(pipe: Pipeline, name: str = "first", seed: int = 1, **settings: Any) -> Path:
        module, file = pipe.backbone.trainable, tmp_path / name / "pytorch_lora_weights.safetensors"
        add_adapter(module, AdapterSettings(**{"rank": 4, "alpha": 6, **settings}), seed=seed)
        fill(module, seed)
        write_adapter(trained_adapter(module), file)
        module.unload_lora()  # type: ignore[operator]
        return file

    return do


def fill(module: nn.Module, seed: int) -> None:
    """Random numbers in place of the zeros that an adapter begins with."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def velocity(pipe: Pipeline) -> Tensor:
    """What the model predicts of a fixed latent."""
    noisy = starting_noise(pipe.backbone, [0, 1], 64, 96)
    text = pipe.backbone.encode_text(["a tabby cat", "a brick wall"])
    return pipe.backbone.velocity(noisy, torch.tensor([0.3, 0.8]), text)


def stock(pipe: Pipeline) -> Any:
    """Diffusers' own pipeline, freshly loaded from the same folder."""
    return STOCK[pipe.loaded.model.ref.name].from_pretrained(
        find_model(pipe.loaded.model.ref).location, dtype=torch.float32
    )


def picture(pipe: Pipeline) -> Tensor:
    noise = starting_noise(pipe.backbone, [0], 64, 96)
    latents = sample_latents(pipe.backbone, ["a tabby cat"], noise, SamplingSettings(64, 96, steps=3, guidance=3))
    return (pipe.backbone.decode(latents) / 2 + 0.5).clamp(0, 1)


def stock_picture(pipeline: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    size = {"width": 64, "height": 96, "num_inference_steps": 3, "guidance_scale": 3.0, "max_sequence_length": 24}
    result: Tensor = pipeline("a tabby cat", generator=generator, output_type="pt", **size).images
    return result


def test_the_stock_pipeline_draws_the_same_picture_with_the_same_file(pipe: Pipeline, make: Make) -> None:
    """`load_lora_weights` reads what d4k wrote, alpha included: pictures within 1e-4, and not that of the base."""
    file, plain = make(pipe), picture(pipe)
    theirs = stock(pipe)
    theirs.load_lora_weights(str(file.parent))
    pipe.load_adapter(file)
    assert (picture(pipe) - stock_picture(theirs)).abs().max() <= 1e-4
    assert (picture(pipe) - plain).abs().max() > 1e-2


def test_diffusers_reads_the_alphas_of_the_comfyui_layout(make: Make, tmp_path: Path) -> None:
    """Its loader of FLUX.1 knows that layout too, and draws with it what it draws with its own."""
    pipe = bare(loaded("tiny-flux"))
    file, pictures = make(pipe), []
    write_adapter(read_adapter(file), tmp_path / "comfyui.safetensors", layout="comfyui")
    for name in (file, tmp_path / "comfyui.safetensors"):
        theirs = stock(pipe)
        theirs.load_lora_weights(str(name.parent), weight_name=name.name)
        pictures.append(stock_picture(theirs))
    assert (pictures[0] - pictures[1]).abs().max() <= 1e-5


@pytest.mark.parametrize("metadata", [True, False])
def test_an_adapter_of_diffusers_gives_the_same_velocity(pipe: Pipeline, tmp_path: Path, metadata: bool) -> None:
    """What `save_lora_weights` writes is read; without metadata alpha is the rank, as for diffusers."""
    theirs = stock(pipe)
    config = LoraConfig(r=4, lora_alpha=12 if metadata else 4, target_modules=["to_q", "to_out.0", "ff.net.2"])
    theirs.transformer.add_adapter(config)
    fill(theirs.transformer, 3)
    settings = {"transformer_lora_adapter_metadata": config.to_dict()} if metadata else {}
    layers = get_peft_model_state_dict(theirs.transformer, adapter_name="default")
    type(theirs).save_lora_weights(tmp_path, transformer_lora_layers=layers, **settings)
    pipe.load_adapter(tmp_path)
    ours = velocity(pipe)
    original, pipe.backbone.trainable = pipe.backbone.trainable, theirs.transformer
    expected = velocity(pipe)
    pipe.backbone.trainable = original
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_a_new_adapter_changes_nothing_and_alone_is_trained(pipe: Pipeline) -> None:
    """Its second matrices are zero; only float32 matrices of the attention projections have gradients."""
    before = velocity(pipe)
    add_adapter(pipe.backbone.trainable, AdapterSettings(rank=2))
    assert torch.equal(velocity(pipe), before)
    trained = {n: p for n, p in pipe.backbone.trainable.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for p in trained.values())
    ends = {next(t for t in TARGETS if f".{t}.lora_" in name) for name in trained}
    assert ends == set(TARGETS)


def test_the_seed_decides_the_first_matrices(one: Pipeline) -> None:
    """Equal seeds, equal adapters, whatever the global generator did; it is left as it was."""
    drawn = []
    for seed in (1, 1, 2):
        torch.randn(3)
        state = torch.get_rng_state()
        add_adapter(one.backbone.trainable, AdapterSettings(rank=2), seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        drawn.append(trained_adapter(one.backbone.trainable).tensors)
        one.backbone.trainable.unload_lora()  # type: ignore[operator]
    name = next(name for name in drawn[0] if "lora_A" in name)
    assert torch.equal(drawn[0][name], drawn[1][name])
    assert not torch.equal(drawn[0][name], drawn[2][name])


def test_updates_of_several_adapters_add_up_times_their_weights(pipe: Pipeline, make: Make) -> None:
    """Weights of 0.5 and -2 give W + 0.5 alpha/r B A - 2 alpha/r B' A', computed here by hand; ranks may differ."""
    files = [make(pipe, "first", 1, rank=4), make(pipe, "second", 2, rank=2, alpha=2)]
    weights = dict(zip(files, (0.5, -2.0), strict=True))
    original = {name: tensor.clone() for name, tensor in pipe.backbone.trainable.state_dict().items()}
    for file, weight in weights.items():
        adapter = read_adapter(file)
        for layer, rank in adapter.ranks.items():
            a, b = (adapter.tensors[f"{layer}.lora_{x}.weight"] for x in "AB")
            pipe.backbone.trainable.get_parameter(f"{layer}.weight").data += (
                weight * adapter.settings["lora_alpha"] / rank * b @ a
            )
    expected = velocity(pipe)
    pipe.backbone.trainable.load_state_dict(original)
    for file, weight in weights.items():
        pipe.load_adapter(file, weight)
    torch.testing.assert_close(velocity(pipe), expected, rtol=0, atol=1e-4)
    assert {name: used.scale for name, used in pipe.adapters.items()} == {"first": 0.5, "second": -2.0}


def test_adapters_can_be_weighed_anew_and_switched_off(one: Pipeline, make: Make) -> None:
    """An adapter that is not named is off; none named is the base itself, bit by bit; on again is as before."""
    before, files = velocity(one), [make(one, "first", 1), make(one, "second", 2)]
    one.load_adapter(files[0])
    alone = velocity(one)
    one.load_adapter(files[1])
    both = velocity(one)
    one.set_adapters({"first": 1.0})
    assert torch.equal(velocity(one), alone)
    one.set_adapters({})
    assert torch.equal(velocity(one), before)
    one.set_adapters({"second": 0.0})
    assert torch.equal(velocity(one), before)
    one.set_adapters({"second": 1.0, "first": 1.0})
    torch.testing.assert_close(velocity(one), both, rtol=0, atol=1e-5)


def test_merged_adapters_draw_the_same_and_are_saved(pipe: Pipeline, make: Make, tmp_path: Path) -> None:
    """Stock diffusers loads the merged folder, which has the base's own names; its recipe still says what is in it."""
    files = [make(pipe, "first", 1), make(pipe, "second", 2)]
    names = set(pipe.backbone.trainable.state_dict())
    merging = Pipeline.from_pretrained(
        pipe.loaded.model.ref.name, device="cpu", adapters={files[0]: 0.5, files[1]: 1.0}
    )
    merging.load_adapter(files[1], name="off")
    merging.set_adapters({"first": 0.5, "second": 1.0})
    expected = velocity(merging)
    with pytest.raises(ConfigError, match=r"has adapters \(first, second, off\).*call merge_adapters\(\)"):
        merging.save_pretrained(tmp_path / "merged")
    merging.merge_adapters()
    torch.testing.assert_close(velocity(merging), expected, rtol=0, atol=1e-5)
    merging.save_pretrained(tmp_path / "merged")
    saved = STOCK[pipe.loaded.model.ref.name].from_pretrained(tmp_path / "merged").transformer.state_dict()
    assert set(saved) == names
    assert all(torch.equal(saved[name], tensor) for name, tensor in merging.backbone.trainable.state_dict().items())
    recipe = merging.generate("a cup", width=64, height=64, steps=1)[0].info["d4k"]
    assert [(used["name"], used["scale"]) for used in recipe["adapters"]] == [("first", 0.5), ("second", 1.0)]
    assert merging.adapters == {}


def test_the_recipe_records_adapters_by_content(one: Pipeline, make: Make) -> None:
    """Name, source, weight and SHA-256, also of one that is off; no word of them where there are none."""
    assert "adapters" not in one.generate("a cup", width=64, height=64, steps=1)[0].info["d4k"]
    file = make(one)
    one.load_adapter(file.parent, 0.5)
    recipe = one.generate("a cup", width=64, height=64, steps=1)[0].info["d4k"]
    assert recipe["adapters"] == [
        {"name": "first", "source": str(file.parent), "sha256": read_adapter(file).sha256, "scale": 0.5}
    ]
    json.dumps(recipe)
    one.set_adapters({})
    recipe = one.generate("a cup", width=64, height=64, steps=1)[0].info["d4k"]
    assert [used["scale"] for used in recipe["adapters"]] == [0.0]


def test_a_recipe_is_repeated_with_the_weights_of_its_adapters(make: Make, tmp_path: Path) -> None:
    """One that its model brings and that was off stays off; one that was on twice counts twice; a new file is told."""
    pipe, run = bare(loaded("tiny-sd3")), CliRunner().invoke
    file = make(pipe, "adapter")
    write_card(file.parent, Card("sd3", base=ModelRef("tiny-sd3")))
    small: dict[str, Any] = {"width": 64, "height": 64, "steps": 1}
    for weight in (0.0, 0.5):
        pipe = Pipeline.from_pretrained(file.parent, device="cpu", adapters={file.parent: weight})
        pipe.load_adapter(file, weight, name="again")
        picture = pipe.generate("a cup", **small)[0]
        save_picture(picture, tmp_path / f"{weight}.png", recipe=picture.info["d4k"])
        words = ["generate", "--recipe", str(tmp_path / f"{weight}.png"), "--device", "cpu", "--output"]
        result = run(main, [*words, str(tmp_path / f"{weight}-again.png")])
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / f"{weight}-again.png") as image:
            assert np.abs(np.asarray(image).astype(int) - np.asarray(picture)).max() <= 1
    adapter = read_adapter(file)
    write_adapter(evolve(adapter, settings={**adapter.settings, "lora_alpha": 3}), file)
    with pytest.warns(UserWarning, match="the recipe was made with another version of .*adapter"):
        run(main, [*words, str(tmp_path / "changed.png")], catch_exceptions=False)


def test_the_recipe_repeats_the_picture(one: Pipeline, make: Make) -> None:
    """Model, and adapters by source and weight, are enough to draw it again, bit by bit."""
    files = [make(one, "first", 1), make(one, "second", 2)]
    for file, weight in zip(files, (0.5, -0.3), strict=True):
        one.load_adapter(file, weight)
    picture = one.generate("a cup", width=64, height=64, steps=2, seed=4)[0]
    recipe = picture.info["d4k"]
    adapters = {used["source"]: used["scale"] for used in recipe["adapters"]}
    again = Pipeline.from_pretrained(recipe["model"], device="cpu", adapters=adapters, **recipe["options"])
    settings = {key: recipe[key] for key in ("width", "height", "steps", "guidance", "seed")}
    assert again.generate(recipe["prompt"], **settings)[0].tobytes() == picture.tobytes()


def test_names_come_from_the_files_and_are_never_taken_twice(one: Pipeline, make: Make) -> None:
    """A second `first` is `first_2`'s elder; a name that was given must be free."""
    file = make(one)
    assert [one.load_adapter(file), one.load_adapter(file), one.load_adapter(file, name="own")] == [
        "first",
        "first_1",
        "own",
    ]
    with pytest.raises(ConfigError, match="there is an adapter 'own' already"):
        one.load_adapter(file, name="own")
    with pytest.raises(ConfigError, match="must be of letters, digits and underscores, got 'v1.5'"):
        one.load_adapter(file, name="v1.5")


def test_wrong_weights_and_unknown_names_are_refused(one: Pipeline, make: Make) -> None:
    """Nothing changes."""
    one.load_adapter(make(one))
    before = velocity(one)
    with pytest.raises(UnknownNameError, match="unknown adapter 'frist'; did you mean 'first'"):
        one.set_adapters({"frist": 1.0})
    for weight in (float("nan"), "1", True):
        with pytest.raises(ConfigError, match="the scale of an adapter must be a finite number"):
            one.set_adapters({"first": weight})  # type: ignore[dict-item]
    assert torch.equal(velocity(one), before)


def test_an_adapter_of_another_model_is_refused_whole(pipe: Pipeline, make: Make, tmp_path: Path) -> None:
    """The error names a layer; the model is as before, and takes the right adapter afterwards."""
    right, before = make(pipe), velocity(pipe)
    adapter = read_adapter(right)
    layer = next(iter(adapter.ranks))
    strange = {name.replace(layer, "blocks.99.attn.to_q"): tensor for name, tensor in adapter.tensors.items()}
    large = {**adapter.tensors, f"{layer}.lora_B.weight": torch.zeros(7, 4)}
    for name, tensors in (("strange", strange), ("large", large)):
        write_adapter(Adapter("", tensors, adapter.settings), tmp_path / f"{name}.safetensors")
    with pytest.raises(
        CheckpointError, match=r"does not fit this model: 1 of its \d+ layers are not in it, such as 'blocks.99"
    ):
        pipe.load_adapter(tmp_path / "strange.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"it changes '{layer}' from (\d+) to 7 features, which here is from \1 to \1"
    ):
        pipe.load_adapter(tmp_path / "large.safetensors")
    assert loaded_adapters(pipe.backbone.trainable) == []
    assert torch.equal(velocity(pipe), before)
    pipe.load_adapter(right)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"r2d2": 1},
            "the metadata of adapter .* sets r2d2, which d4k does not know: load it with diffusers",
        ),
        ({"r": 3}, "says rank 3, but its matrices of 'transformer_blocks.0.attn.add_k_proj' have 4"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the model's own weights"),
    ],
)
def test_an_adapter_that_peft_refuses_leaves_no_trace(
    one: Pipeline, make: Make, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    """Settings from the future, or of other tensors, are one line, beside an adapter that stays as it is."""
    file = make(one)
    one.load_adapter(file)
    adapter, before = read_adapter(file), velocity(one)
    write_adapter(Adapter("", adapter.tensors, {**adapter.settings, **settings}), tmp_path / "new.safetensors")
    with pytest.raises(CheckpointError, match=message):
        one.load_adapter(tmp_path / "new.safetensors")
    assert torch.equal(velocity(one), before)
    assert list(one.adapters) == loaded_adapters(one.backbone.trainable) == ["first"]
    one.load_adapter(file, name="new")


def test_dropout_is_off_once_loaded(one: Pipeline, make: Make) -> None:
    """What the adapter did not see in training it sees in use."""
    one.load_adapter(make(one, dropout=0.5))
    assert torch.equal(velocity(one), velocity(one))


def test_an_adapter_is_offloaded_with_its_model(make: Make) -> None:
    """Group offloading, which was set up before, moves the new layers too."""
    pipe, cpu = Pipeline.from_pretrained("tiny-sd3", device="cpu"), torch.device("cpu")
    file, module = make(pipe), pipe.backbone.trainable
    module.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type="leaf_level")  # type: ignore[operator]
    pipe.load_adapter(file)
    leaves = [one for name, one in module.named_modules() if name.endswith((".base_layer", ".first"))]
    leaves = [layer for layer in leaves if isinstance(layer, nn.Linear)]
    assert len(leaves) == 3 * len(read_adapter(file).ranks)
    assert all(hasattr(layer, "_diffusers_hook") for layer in leaves)


def test_weights_on_disk_take_no_adapters(one: Pipeline, make: Make, tmp_path: Path) -> None:
    """Neither on loading, where even a missing one is not looked for, nor later; the way out is named."""
    file, pattern = make(one), r"offload='disk' cannot hold adapters: merge them first \(d4k adapter merge\)"
    with pytest.raises(ConfigError, match=pattern):
        Pipeline.from_pretrained("tiny-sd3", device="cpu", offload="disk", adapters=[tmp_path / "nothing"])
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", offload="disk")
    with pytest.raises(ConfigError, match=pattern):
        pipe.load_adapter(file)


def test_targets_that_match_nothing_name_what_is_near(one: Pipeline) -> None:
    """Every target that was asked for must be the end of a layer's name; a block or a half name is none."""
    for target, near in (("to_qq", "attn.to_q"), ("attn", "attn.to_q|attn"), ("o_q", "to_q")):
        with pytest.raises(ConfigError, match=rf"adapter.targets: '{target}' is the end of no layer.*near: .*({near})"):
            add_adapter(one.backbone.trainable, AdapterSettings(targets=["to_k", target]))  # type: ignore[arg-type]
    assert loaded_adapters(one.backbone.trainable) == []


def test_a_model_that_takes_no_adapters_is_said_to() -> None:
    """A plain module is not half-changed."""
    with pytest.raises(ConfigError, match="Linear takes no adapters: it is not a diffusers model"):
        add_adapter(nn.Linear(2, 2), AdapterSettings())


def test_adapters_of_from_pretrained_are_a_list_or_a_table(make: Make, one: Pipeline) -> None:
    """A single string, which Python takes for a list of letters, is refused; a file that is given twice counts once."""
    file = make(one)
    with pytest.raises(ConfigError, match="adapters must be a list of files or folders"):
        Pipeline.from_pretrained(one.loaded.model.ref.name, adapters=str(file))
    again = Pipeline.from_pretrained(one.loaded.model.ref.name, device="cpu", adapters=[file, file.parent])
    assert [(used.name, used.scale) for used in again.adapters.values()] == [("first", 1.0)]


def test_the_command_line_draws_and_merges(one: Pipeline, make: Make, tmp_path: Path) -> None:
    """`generate --adapter PATH:WEIGHT` and the model of `adapter merge` draw the same picture."""
    file, run = make(one), CliRunner().invoke
    result = run(main, ["adapter", "merge", "tiny-sd3", f"{file.parent}:0.5", "--output", str(tmp_path / "merged")])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"{file.parent} with scale 0.5", f"model: {tmp_path / 'merged'}"]
    small = ["--width", "64", "--height", "64", "--steps", "1", "--device", "cpu", "--guidance", "2"]
    pictures = []
    for number, words in enumerate((["tiny-sd3", "--adapter", f"{file.parent}:0.5"], [str(tmp_path / "merged")])):
        output = tmp_path / f"{number}.png"
        assert run(main, ["generate", "a cup", *small, "--output", str(output), "--model", *words]).exit_code == 0
        with Image.open(output) as image:
            pictures.append(np.asarray(image).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_nothing_to_merge_is_said(tmp_path: Path) -> None:
    """A merge of no adapter would be a copy; no folder is left."""
    result = CliRunner().invoke(main, ["adapter", "merge", "tiny-sd3", "--output", str(tmp_path / "none")])
    assert (result.exit_code, "there is no adapter to merge into tiny-sd3" in result.stderr) == (2, True)
    assert not (tmp_path / "none").exists()
