"""The facade on the tiny checkpoints: one prompt, one photograph and one score each walk all the way through."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from d4k import CheckpointError, ConfigError, DataError, OutputError, Pipeline, PluginError, Score, UnknownNameError
from d4k.images import read_recipe, save_picture, to_tensor
from d4k.machine import choose_device
from d4k.plugins import registry


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("tiny-sd3", device="cpu")


def draw(pipe: Pipeline, *args: object, **settings: object) -> list[np.ndarray]:
    return [np.asarray(image) for image in pipe.generate(*args, **{"width": 64, "height": 96, "steps": 2, **settings})]


def test_generate_returns_pictures_of_the_size_asked_for(pipe):
    """Width and height are pixels, in that order."""
    images = pipe.generate("a tabby cat", width=64, height=96, steps=1)

    assert [image.size for image in images] == [(64, 96)]


def test_the_same_seed_draws_the_same_picture(pipe):
    """A picture repeats with its seed, and changes with another."""
    first, again, other = (draw(pipe, "a tabby cat", seed=seed)[0] for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_prompt_takes_several_seeds(pipe):
    """Several seeds draw several pictures of one prompt, each as if drawn alone."""
    both = draw(pipe, "a tabby cat", seed=[5, 6])

    assert np.array_equal(both[1], draw(pipe, "a tabby cat", seed=6)[0])


def test_the_recipe_repeats_the_picture(pipe, tmp_path):
    """What is stored in a file is enough to draw it again."""
    image = pipe.generate("a tabby cat", width=64, height=64, steps=2, seed=9)[0]
    save_picture(image, tmp_path / "cat.png", recipe=image.info["d4k"])

    recipe = read_recipe(tmp_path / "cat.png")
    settings = {key: recipe[key] for key in ("width", "height", "steps", "guidance", "seed", "negative_prompt")}
    again = Pipeline.from_pretrained(recipe["model"], device="cpu").generate(recipe["prompt"], **settings)[0]

    assert np.array_equal(np.asarray(image), np.asarray(again))


def test_defaults_are_those_of_the_checkpoint(pipe):
    """Left out, size, steps and guidance are the model's own."""
    defaults = pipe.backbone.defaults

    assert (defaults.size, defaults.steps) == (256, 28)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 70}, "width 70 is not a multiple of 16; nearest: 64 or 80"),
        ({"height": 8}, "height 8 is not a multiple of 16; nearest: 16"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": -1}, "seed must be between 0"),
        ({"seed": [1, 2, 3]}, None),
    ],
)
def test_values_out_of_range_are_refused(pipe, settings, message):
    """Each message names the value and what is allowed."""
    prompts = ["one", "two"]
    with pytest.raises(ConfigError, match=message or "2 prompts, but 3 seeds"):
        pipe.generate(prompts, **{"width": 64, "height": 64, "steps": 1, **settings})


def test_no_prompt_is_refused(pipe):
    """An empty list of prompts is an error."""
    with pytest.raises(ConfigError, match="no prompt"):
        pipe.generate([])


def test_training_changes_the_model_and_saves_it(tmp_path):
    """A run moves the weights, and its folder loads as the fine-tuned model."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu")
    before = {name: tensor.clone() for name, tensor in pipe.backbone.trainable.state_dict().items()}

    run = pipe.train(
        dataset="sample-photos",
        dataset_options={"names": ["retina"]},
        output_dir=tmp_path / "run",
        steps=2,
        width=64,
        height=64,
        lr=1e-3,
        schedule="cosine",
    )
    after = Pipeline.from_pretrained(tmp_path / "run", device="cpu").backbone.trainable.state_dict()

    assert len(run.losses) == run.steps == 2
    trained = pipe.backbone.trainable.state_dict()
    assert any(not torch.equal(before[name], trained[name]) for name in before)
    assert all(torch.equal(after[name], trained[name]) for name in trained)
    assert (run.output_dir / "config.toml").is_file()


def test_an_unknown_setting_is_refused_before_anything_runs(pipe, tmp_path):
    """A misspelt setting suggests the right one and leaves no folder."""
    with pytest.raises(
        ConfigError, match="unknown setting 'learning'|unknown setting 'batchsize'; did you mean 'batch_size'"
    ):
        pipe.train(dataset="sample-photos", output_dir=tmp_path / "run", batchsize=2)

    assert not (tmp_path / "run").exists()


def test_options_beside_an_object_are_refused(pipe, tmp_path):
    """Options belong to components given by name."""
    with pytest.raises(ConfigError, match="set them on the object"):
        pipe.train(dataset=[], dataset_options={"a": 1}, output_dir=tmp_path / "run")


def test_an_empty_dataset_is_refused_and_leaves_no_folder(pipe, tmp_path):
    """An object without pictures is used as given, not looked up by name."""
    with pytest.raises(DataError, match="the dataset is empty"):
        pipe.train(dataset=[], output_dir=tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_evaluate_scores_a_folder(pipe, tmp_path):
    """Metrics by name over a folder return one Score each, with the count."""
    for seed in range(2):
        save_picture(pipe.generate("a cup", width=128, height=128, steps=1, seed=seed)[0], tmp_path / f"{seed}.png")

    scores = pipe.evaluate(tmp_path, metrics=["glcm", "compression-ratio"])

    assert all(isinstance(score, Score) for score in scores)
    assert [(score.metric, score.count) for score in scores] == [("glcm", 2), ("compression-ratio", 2)]


def test_save_pretrained_refuses_a_folder_in_use(pipe, tmp_path):
    """Nothing is overwritten."""
    (tmp_path / "file").write_text("mine")

    with pytest.raises(OutputError, match="not empty"):
        pipe.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_model_lists_the_known(pipe):
    """A misspelt checkpoint suggests the right one."""
    with pytest.raises(UnknownNameError, match="unknown model 'tiny-sd33'; did you mean 'tiny-sd3'"):
        Pipeline.from_pretrained("tiny-sd33")


def test_an_unknown_backbone_option_is_refused():
    """A misspelt option suggests the right one."""
    with pytest.raises(ConfigError, match="has no option 'position'; did you mean 'positions'"):
        Pipeline.from_pretrained("tiny-sd3", position="interpolate")


def test_an_unknown_dtype_or_device_is_refused():
    """Both name what is allowed."""
    with pytest.raises(UnknownNameError, match="float16"):
        Pipeline.from_pretrained("tiny-sd3", dtype="int8")
    with pytest.raises(ConfigError, match="device 'tpu9'"):
        choose_device("tpu9")


@pytest.mark.parametrize("name", ["transformer", "vae"])
def test_a_corrupt_checkpoint_is_named(pipe, tmp_path, name):
    """A weight file that was cut short is one clear error."""
    pipe.save_pretrained(tmp_path / "model")
    weights = next((tmp_path / "model" / name).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(CheckpointError, match="cannot load.*Download it again"):
        Pipeline.from_pretrained(tmp_path / "model", device="cpu")


def test_a_pipeline_that_no_plugin_loads_is_named(tmp_path):
    """The message names the pipeline class and those that can be loaded."""
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyPipeline"}))

    with pytest.raises(CheckpointError, match="KandinskyPipeline, which no installed plugin loads.*FluxPipeline"):
        Pipeline.from_pretrained(tmp_path)


def test_a_model_whose_plugin_is_missing_says_so(monkeypatch):
    """A checkpoint whose backbone failed to load raises the reason."""
    names = registry()
    monkeypatch.delitem(names.entries, ("backbone", "sd3"))
    monkeypatch.setitem(names.failures, "d4k-sd3", "ImportError: broken")

    with pytest.raises(PluginError, match="d4k-sd3 failed to load: ImportError: broken"):
        Pipeline.from_pretrained("tiny-sd3")


def test_each_process_of_a_launcher_has_a_gpu_of_its_own(monkeypatch):
    """What torchrun and accelerate say of the process decides; a name that was given wins."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert str(choose_device()) == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert str(choose_device()) == "cuda:3"
    assert str(choose_device("cpu")) == "cpu"


@pytest.fixture(scope="module")
def small(pipe) -> Image.Image:
    """A picture of 96x64 to begin with."""
    return pipe.generate("a tabby cat", width=96, height=64, steps=2)[0]


def test_stages_are_generated_and_recorded(pipe):
    """The recipe holds the earlier stages; they are the smaller picture, enlarged and refined."""
    staged = pipe.generate("a tabby cat", stages="48,96", height=64, width=96, steps=2, restart=0.6)[0]
    recipe = staged.info["d4k"]

    assert staged.size == (recipe["width"], recipe["height"]) == (96, 64)
    assert [(one["width"], one["height"]) for one in recipe["earlier"]] == [(48, 32)]
    assert recipe["restart"] == 0.6
    first = pipe.generate("a tabby cat", width=48, height=32, steps=2)[0]
    again = pipe.generate("a tabby cat", image=first, width=96, height=64, steps=2, restart=0.6)[0]
    assert np.array_equal(np.asarray(staged), np.asarray(again))


@pytest.mark.parametrize("kind", ["picture", "path", "tensor"])
def test_a_picture_is_begun_with_however_it_is_given(pipe, small, tmp_path, kind):
    """The result has its size, and the recipe says what was begun with."""
    path = tmp_path / "cat.png"
    small.save(path)
    given = {"picture": small, "path": path, "tensor": to_tensor(small)}[kind]
    result = pipe.generate("a tabby cat", image=given, strength=0.5, steps=4)[0]
    recipe = result.info["d4k"]

    expected = pipe.generate("a tabby cat", image=[small], strength=0.5, steps=4)[0]
    assert np.array_equal(np.asarray(result), np.asarray(expected))
    assert result.size == (96, 64)
    assert len(recipe["image_sha256"]) == 64
    assert recipe.get("image") == (str(path) if kind == "path" else None)
    assert "strength" not in recipe
    assert 0 < recipe["restart"] < 1
    assert recipe["restart"] != 0.7


def test_less_strength_leaves_more_of_the_picture(pipe, small):
    """The fewer steps are taken, the nearer the result is."""
    given = {"image": small, "width": 96, "height": 64, "steps": 8}
    found = [draw(pipe, "a rocket", strength=strength, **given)[0] for strength in (0.25, 0.5, 0.875)]
    away = [np.abs(one - np.asarray(small, float)).mean() for one in found]

    assert away[0] < away[1] < away[2]


def test_a_picture_keeps_its_aspect_or_is_cut_with_a_warning(pipe, small):
    """Of one side the other follows; both, at another aspect, cut what does not fit."""
    settings = {"strength": 0.5, "steps": 2}

    assert pipe.generate("a", image=small, width=192, **settings)[0].size == (192, 128)
    assert pipe.generate("a", image=small.resize((100, 60)), **settings)[0].size == (96, 64)
    assert pipe.generate("a", image=small, stages="48,96", **settings)[0].size == (96, 64)
    assert pipe.generate("a", image=small, stages="auto", width=192, **settings)[0].info["d4k"].get("earlier") is None
    with pytest.warns(UserWarning, match="is 96x64, and 64x64 is asked for: what does not fit is cut off"):
        square = pipe.generate("a", image=small, width=64, height=64, **settings)[0]
    middle = pipe.generate("a", image=small.crop((16, 0, 80, 64)), **settings)[0]
    assert np.array_equal(np.asarray(square), np.asarray(middle))


def test_each_prompt_may_begin_with_a_picture_of_its_own(pipe, small):
    """Of other sizes, too; callbacks count the prompts."""
    images, firsts = [small, small, small.resize((64, 64))], []
    found = pipe.generate(
        ["a", "b", "c"], image=images, strength=0.5, steps=2, batch_size=2, on_step=lambda s: firsts.append(s.first)
    )

    assert [one.size for one in found] == [(96, 64), (96, 64), (64, 64)]
    assert firsts == [0, 2]
    alone = pipe.generate("c", image=images[2], strength=0.5, steps=2)[0]
    assert np.array_equal(np.asarray(found[2]), np.asarray(alone))
    with pytest.raises(ConfigError, match="2 images, but 3 prompts: give one image, or one for each prompt"):
        pipe.generate(["a", "b", "c"], image=images[:2])


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (Image.new("L", (64, 64)), "a picture of mode L"),
        (torch.zeros(3, 64, 64), "a tensor of torch.float32"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), r"\(64, 64, 3\)"),
        (5, "int"),
    ],
)
def test_what_is_no_picture_to_begin_with_is_refused(pipe, image, got):
    """The sentence says what is allowed."""
    with pytest.raises(ConfigError, match=f"image must be a path, an RGB picture, or a uint8 tensor .*; got .*{got}"):
        pipe.generate("a", image=image)


def test_a_guide_is_named_in_the_recipe(pipe):
    """Since the recipe alone cannot repeat the picture."""

    def brighter(estimate):
        return estimate.clean + 0.1

    guided = pipe.generate("a tabby cat", width=64, height=64, steps=2, guide=brighter)[0]
    plain = pipe.generate("a tabby cat", width=64, height=64, steps=2, guide=lambda estimate: estimate.clean)[0]

    assert guided.info["d4k"]["guide"].endswith("test_a_guide_is_named_in_the_recipe.<locals>.brighter")
    assert not np.array_equal(np.asarray(guided), np.asarray(plain))
    assert np.array_equal(np.asarray(plain), draw(pipe, "a tabby cat", height=64)[0])


def test_a_much_larger_size_suggests_stages(pipe):
    """In one line, before anything is computed."""

    def stop(_):
        raise KeyError("stop")

    words = r"384x384 is beyond what 'tiny-sd3' was trained at \(256x256\): add stages='auto' \(--stages auto\)"
    with pytest.warns(UserWarning, match=words), pytest.raises(KeyError):
        pipe.generate("a tabby cat", width=384, height=384, steps=1, on_step=stop)
