"""Every score against open_clip, transformers and torchmetrics themselves."""

from __future__ import annotations

import gc
import json
import math
import os
import weakref
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers.models.clip import CLIPImageProcessorPil

from d4k import CheckpointError, ConfigError, DataError, create
from d4k.images import to_picture
from d4k.testing import check_metric
from d4k_clip.head import read_head
from d4k_clip.metrics import Aesthetics, CLIPScore, HPSv2, PickScore
from d4k_clip.tower import find_architecture, load_tower
from d4k_clip.weights import AESTHETICS, VIT_L14, file_digest

CPU = torch.device("cpu")
PROMPTS = ["a tabby cat", "", "три красных велосипеда", "古い木の下の赤い自転車 🚲"]
LONG = "a very long walk past two red bicycles under an old tree " * 16


def loaded(kind, **options):
    metric = kind(**options)
    metric.load(CPU)
    return metric


def cosines(tiny, pictures, prompts):
    """By open_clip's own preprocessing, tokenizer and model, a picture at a time."""
    found = []
    with torch.inference_mode():
        for picture, prompt in zip(pictures, prompts, strict=True):
            image = tiny.model.encode_image(tiny.transform(to_picture(picture))[None])
            text = tiny.model.encode_text(open_clip.tokenize([prompt]))
            found.append(float(F.cosine_similarity(image.double(), text.double())))
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [("clip-score", CLIPScore), ("aesthetics", Aesthetics), ("pickscore", PickScore), ("hpsv2", HPSv2)],
)
def test_each_metric_is_registered(name, kind):
    """`create("metric", name)` makes it."""
    metric = create("metric", name)
    assert isinstance(metric, kind)
    assert metric.name == name


@pytest.mark.parametrize("kind", [CLIPScore, PickScore, HPSv2, Aesthetics])
def test_each_metric_keeps_the_contract(kind, tiny, head):
    """d4k's own contract check passes."""
    options = {"head": head.path} if kind is Aesthetics else {}
    check_metric(kind(**tiny.options, **options))


def test_clip_score_is_100_times_the_cosine_that_open_clip_gives(tiny, pictures):
    """Pictures of any shape and prompts in any script, at once."""
    metric = loaded(CLIPScore, **tiny.options)
    rows = metric.observe(image=pictures, prompt=PROMPTS)
    wanted = [100 * max(cosine, 0) for cosine in cosines(tiny, pictures, PROMPTS)]
    assert rows[:, 0].tolist() == pytest.approx(wanted, abs=1e-4)
    assert metric.score(rows)["clip-score"] == pytest.approx(sum(wanted) / 4, abs=1e-4)
    assert min(wanted) >= 0
    assert len({round(value, 3) for value in wanted}) >= 3


def test_a_negative_cosine_is_0_for_clip_score_and_negative_for_hpsv2(tiny, pictures, tmp_path):
    """The text projection with its sign turned gives the opposite cosine."""
    state = {name: tensor.contiguous() for name, tensor in tiny.model.state_dict().items()}
    state["text_projection"] = -state["text_projection"]
    save_file(state, tmp_path / "turned.safetensors")
    options = {"model": tiny.config, "weights": str(tmp_path / "turned.safetensors")}
    square = [picture for picture in pictures if picture.shape[1] == picture.shape[2]]
    assert cosines(tiny, square, ["a tree"])[0] > 0.01
    assert loaded(CLIPScore, **options).observe(image=square, prompt=["a tree"])[0, 0] == 0
    found = loaded(HPSv2, **options).observe(image=square, prompt=["a tree"])[0, 0]
    assert float(found) == pytest.approx(-100 * cosines(tiny, square, ["a tree"])[0], abs=1e-4)


class Processor:
    """What torchmetrics asks for: pictures by transformers' own processor, texts by the shared tokenizer."""

    def __init__(self, size):
        self.images = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})

    def __call__(self, images=None, text=None, return_tensors="pt", padding=True):
        if images is not None:
            return self.images(images=images, return_tensors=return_tensors)
        tokens = open_clip.tokenize(text)
        last = tokens.argmax(1, keepdim=True)
        return {"input_ids": tokens, "attention_mask": (torch.arange(tokens.shape[1]) <= last).long()}


def features(model):
    """The model as torchmetrics knows it, whose features are tensors."""

    class Plain(torch.nn.Module):
        config = model.config

        def get_image_features(self, pixels):
            found = model.get_image_features(pixel_values=pixels)
            return found if isinstance(found, torch.Tensor) else found.pooler_output

        def get_text_features(self, tokens, mask):
            found = model.get_text_features(input_ids=tokens, attention_mask=mask)
            return found if isinstance(found, torch.Tensor) else found.pooler_output

    return Plain()


def test_clip_score_is_that_of_torchmetrics_with_the_same_weights(twin, pictures):
    """On transformers' model, preprocessing and all; the file is in transformers' layout."""
    from torchmetrics.functional.multimodal import clip_score

    metric = loaded(CLIPScore, **twin.options)
    for picture, prompt in zip(pictures, PROMPTS, strict=True):
        with torch.inference_mode():
            wanted = clip_score(picture, prompt, lambda: (features(twin.model), Processor(32)))
        row = metric.observe(image=[picture], prompt=[prompt])
        assert metric.score(row)["clip-score"] == pytest.approx(float(wanted), abs=1e-4)


def test_pickscore_is_the_logit_of_transformers_with_the_same_weights(twin, pictures):
    """The logit scale is read from the file."""
    metric = loaded(PickScore, **twin.options)
    rows = metric.observe(image=pictures, prompt=PROMPTS)
    process = Processor(32)
    with torch.inference_mode():
        pixels = torch.cat([process(images=picture)["pixel_values"] for picture in pictures])
        wanted = twin.model(pixel_values=pixels, **process(text=PROMPTS)).logits_per_image.diag()
    assert rows[:, 0].tolist() == pytest.approx(wanted.tolist(), abs=1e-3)
    assert metric.score(rows)["pickscore"] == pytest.approx(float(wanted.mean()), abs=1e-3)
    assert float(wanted.abs().max()) > 1


def test_hpsv2_sees_the_whole_picture_with_black_beside_it(tiny, pictures):
    """Against Pillow: the longer side becomes 32 pixels, bicubic, in the middle of a black square."""
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    wanted = []
    for picture, prompt in zip(pictures, PROMPTS, strict=True):
        scale = 32 / max(picture.shape[1:])
        height, width = (round(side * scale) for side in picture.shape[1:])
        canvas = Image.new("RGB", (32, 32))
        canvas.paste(
            to_picture(picture).resize((width, height), Image.Resampling.BICUBIC),
            ((32 - width) // 2, (32 - height) // 2),
        )
        pixels = torch.tensor(list(canvas.tobytes())).reshape(32, 32, 3).permute(2, 0, 1) / 255
        with torch.inference_mode():
            image = tiny.model.encode_image(((pixels - mean) / std)[None])
            text = tiny.model.encode_text(open_clip.tokenize([prompt]))
        wanted.append(100 * float(F.cosine_similarity(image.double(), text.double())))
    metric = loaded(HPSv2, **tiny.options)
    found = metric.observe(image=pictures, prompt=PROMPTS)[:, 0].tolist()
    assert found == pytest.approx(wanted, abs=1e-4)
    cropped = loaded(CLIPScore, **tiny.options).observe(image=pictures, prompt=PROMPTS)[:, 0].tolist()
    assert abs(found[0] - cropped[0]) > 0.01


def test_aesthetics_is_the_head_on_the_normalised_embedding(tiny, head, pictures):
    """Against open_clip and the layers as a module."""
    metric = loaded(Aesthetics, **tiny.options, head=head.path)
    rows = metric.observe(image=pictures)
    with torch.inference_mode():
        batch = torch.stack([tiny.transform(to_picture(picture)) for picture in pictures])
        wanted = head.module(F.normalize(tiny.model.encode_image(batch), dim=-1))
    assert rows.flatten().tolist() == pytest.approx(wanted.flatten().tolist(), abs=1e-5)
    assert metric.score(rows) == pytest.approx(float(wanted.mean()), abs=1e-5)


def shared_data():
    """The folder of data that is no part of the project: D4K_SHARED, or `shared` beside the repository."""
    beside = [parent / "shared" for parent in Path(__file__).resolve().parents]
    named = [Path(os.environ["D4K_SHARED"])] if "D4K_SHARED" in os.environ else []
    places = [place / sub for place in [*named, *beside] for sub in ("data", ".")]
    name = "aesthetics-linear-vit-l14.pth"
    return next((place / name for place in places if (place / name).is_file()), None)


@pytest.mark.skipif(shared_data() is None, reason="the real aesthetics head is not there: D4K_SHARED names its folder")
def test_the_real_aesthetics_head_gives_its_golden_values():
    """On four random directions, as computed when the head was published in this place."""
    rows = F.normalize(torch.randn(4, 768, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert read_head(shared_data())(rows).tolist() == pytest.approx([5.54257, 5.36506, 4.94470, 4.64072], abs=1e-5)
    assert file_digest(shared_data()) == AESTHETICS.sha256


def test_a_long_caption_is_cut_off_as_open_clip_does(tiny, pictures):
    """And counted: the score says how many there were."""
    metric = loaded(CLIPScore, **tiny.options)
    rows = metric.observe(image=pictures[:2], prompt=[LONG, "a tree"])
    wanted = [100 * max(cosine, 0) for cosine in cosines(tiny, pictures[:2], [LONG, "a tree"])]
    assert rows[:, 0].tolist() == pytest.approx(wanted, abs=1e-4)
    assert rows[:, 1].tolist() == [12 * 16 + 2, 4]
    assert metric.score(rows)["long-captions"] == 1
    assert "`long-captions` counts them" in metric.remarks(2, 0)[0]


def test_a_caption_of_exactly_77_tokens_is_not_long(tiny, pictures):
    """75 words beside begin and end; one more is."""
    metric = loaded(CLIPScore, **tiny.options)
    rows = metric.observe(image=pictures[:2], prompt=["tree " * 75, "tree " * 76])
    assert rows[:, 1].tolist() == [77, 78]
    assert metric.score(rows)["long-captions"] == 1


def test_chunks_average_the_cosines_of_parts_by_their_tokens(tiny, pictures):
    """Twelve words are twelve tokens here, so the parts can be cut by hand."""
    words = LONG.split()
    parts = [" ".join(words[start : start + 75]) for start in range(0, len(words), 75)]
    assert [len(part.split()) for part in parts] == [75, 75, 42]
    metric = loaded(CLIPScore, **tiny.options, long_captions="chunks")
    each = cosines(tiny, pictures[2:3] * 3, parts)
    wanted = 100 * max(0.0, sum(cosine * len(part.split()) for cosine, part in zip(each, parts, strict=True)) / 192)
    row = metric.observe(image=pictures[2:3], prompt=[LONG])
    assert float(row[0, 0]) == pytest.approx(wanted, abs=1e-4)
    cut = loaded(CLIPScore, **tiny.options).observe(image=pictures[2:3], prompt=[LONG])
    assert abs(float(cut[0, 0]) - wanted) > 1e-3
    assert "read in parts" in metric.remarks(1, 0)[0]


def test_short_captions_are_the_same_truncated_and_in_chunks(tiny, pictures):
    """Up to 75 tokens there is one part."""
    prompts = [*PROMPTS[:3], "tree " * 75]
    one, other = (
        loaded(CLIPScore, **tiny.options, long_captions=how).observe(image=pictures, prompt=prompts)
        for how in ("truncate", "chunks")
    )
    assert torch.equal(one, other)


def test_equal_prompts_are_measured_as_different_ones_are(tiny, pictures):
    """Each picture keeps its own prompt whatever the others have."""
    metric = loaded(CLIPScore, **tiny.options, long_captions="chunks")
    prompts = ["a tree", LONG, "a tree", LONG]
    together = metric.observe(image=pictures, prompt=prompts)
    alone = [metric.observe(image=[picture], prompt=[text])[0] for picture, text in zip(pictures, prompts, strict=True)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)


def test_more_pictures_than_a_batch_are_measured_as_few_are(tiny, pictures):
    """Twenty at once."""
    metric = loaded(CLIPScore, **tiny.options)
    rows = metric.observe(image=pictures * 5, prompt=[f"{number} trees" for number in range(20)])
    last = metric.observe(image=pictures[-1:], prompt=["19 trees"])
    assert rows.shape == (20, 2)
    assert torch.allclose(rows[-1:], last, atol=1e-4)


def test_metrics_share_one_model_that_goes_when_they_do(tiny, pictures, tmp_path):
    """Loaded twice, also from a copy of the file, it is one object, which nobody keeps. Other weights are another."""
    architecture, path, copy = find_architecture(tiny.config), Path(tiny.weights), tmp_path / "copy.safetensors"
    copy.write_bytes(path.read_bytes())
    first, second = load_tower(architecture, path, CPU), load_tower(architecture, copy, CPU)
    assert first is second
    state = {name: tensor.contiguous() for name, tensor in tiny.model.state_dict().items()}
    save_file(state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "other.safetensors")
    other = load_tower(architecture, tmp_path / "other.safetensors", CPU)
    assert other.logit_scale == pytest.approx(math.e)
    assert first.logit_scale != other.logit_scale
    metric = loaded(HPSv2, **tiny.options)
    held = weakref.ref(first)
    del first, second
    gc.collect()
    assert held() is load_tower(architecture, path, CPU)
    metric.observe(image=pictures[:1], prompt=["a tree"])
    del metric
    gc.collect()
    assert held() is None


def test_loading_uses_up_no_random_number(tiny):
    """What is drawn after it is what would have been drawn without."""
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    loaded(CLIPScore, **tiny.options)
    assert torch.equal(torch.rand(3), wanted)


def test_the_observation_names_what_decides_a_row(tiny, tmp_path):
    """The same weights under another path: the same. Other weights, or other treatment of long captions: another."""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(Path(tiny.weights).read_bytes())
    state = {name: tensor.contiguous() for name, tensor in tiny.model.state_dict().items()}
    save_file(state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "other.safetensors")
    config = tmp_path / "renamed.json"
    config.write_text(json.dumps(json.loads(Path(tiny.config).read_text()), indent=4))
    first = CLIPScore(**tiny.options).observation
    assert first == CLIPScore(model=str(config), weights=str(copy)).observation
    assert first != CLIPScore(model=tiny.config, weights=str(tmp_path / "other.safetensors")).observation
    assert first != CLIPScore(**tiny.options, long_captions="chunks").observation
    assert first != HPSv2(**tiny.options).observation
    assert first["preprocessing"]["size"] == 32


def test_settings_make_the_metric_again_without_its_files(tiny, head, tmp_path):
    """They are options; a digest stands for where the weights lie, so that a score means the same elsewhere."""
    metric = loaded(CLIPScore, **tiny.options, long_captions="chunks")
    again = create("metric", "clip-score", **metric.settings)
    assert str(Path(tiny.config).parent) not in json.dumps(metric.settings)
    assert again.settings == metric.settings
    assert metric.settings["sha256"] == metric.observation["weights"]
    rows = torch.tensor([[20.0, 3.0], [30.0, 99.0]])
    assert again.score(rows) == metric.score(rows) == {"clip-score": 25.0, "long-captions": 1.0}
    assert again.remarks(2, 0) == metric.remarks(2, 0)
    beauty = loaded(Aesthetics, **tiny.options, head=head.path)
    assert create("metric", "aesthetics", **beauty.settings).settings == beauty.settings
    assert beauty.settings["head_sha256"] == beauty.observation["head"]
    default = Aesthetics()
    assert default.settings == {"model": default.model, "sha256": VIT_L14.sha256, "head_sha256": AESTHETICS.sha256}


def test_the_observation_of_published_weights_needs_no_file(own_cache):
    """Their digests are known; after it the options show them."""
    metric = CLIPScore()
    assert metric.observation["weights"].startswith("4b869929")
    assert metric.sha256 == metric.observation["weights"]
    assert HPSv2().observation["preprocessing"]["resize"] == "longest"
    assert Aesthetics().observation["head"].startswith("21dd590f")


def test_remarks_say_that_weights_are_ones_own(tiny, own_cache):
    """Of the published ones they say nothing."""
    metric, published = loaded(CLIPScore, **tiny.options), CLIPScore()
    assert any("a file of your own" in sentence for sentence in metric.remarks(3, 0))
    assert published.observation
    assert not any("your own" in sentence for sentence in published.remarks(3, 0))


def test_nothing_measured_is_an_error(tiny):
    """As is a metric without weights, a picture that is none, and a prompt too few."""
    metric = CLIPScore(**tiny.options)
    black = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="call load"):
        metric.observe(image=[black], prompt=["a tree"])
    metric.load(CPU)
    with pytest.raises(DataError, match="no picture was measured"):
        metric.score(torch.zeros(0, 2))
    with pytest.raises(DataError, match="uint8"):
        metric.observe(image=[black.float()], prompt=["a tree"])
    with pytest.raises(DataError, match="2 pictures, but 1 prompts"):
        metric.observe(image=[black, black], prompt=["a tree"])


def test_a_head_of_another_width_is_refused(tiny, head, tmp_path):
    """Before anything is measured; likewise a head of other layers."""
    torch.save({"layers.0.weight": torch.zeros(1, 16)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"no aesthetics head of 5 linear layers: layers\.0\.bias"):
        loaded(Aesthetics, **tiny.options, head=str(tmp_path / "other.pth"))
    state = torch.load(head.path, weights_only=True)
    state["layers.0.weight"] = torch.zeros(24, 10)
    torch.save(state, tmp_path / "narrow.pth")
    with pytest.raises(ConfigError, match=r"takes 10 numbers, and .* gives 16"):
        loaded(Aesthetics, **tiny.options, head=str(tmp_path / "narrow.pth"))
    state["layers.2.weight"] = torch.zeros(12, 99)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match="a layer of .12, 99. follows 24"):
        loaded(Aesthetics, **tiny.options, head=str(tmp_path / "broken.pth"))


def test_vit_b_16_of_true_size_gives_what_open_clip_gives(tmp_path):
    """150 million random weights in half precision; read by the metric, and by open_clip from the same file."""
    path, name = tmp_path / "vit.safetensors", "ViT-B-16-quickgelu"
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = open_clip.CLIP(**open_clip.get_model_config(name)).half()
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, path)
    model = model.float().eval()
    picture = torch.randint(0, 256, (3, 300, 500), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))
    metric = loaded(CLIPScore, model=name, weights=str(path))
    row = metric.observe(image=[picture], prompt=["a tree"])
    path.unlink()  # 300 MB, which pytest would keep
    transform = open_clip.image_transform(224, is_train=False)
    with torch.inference_mode():
        image = model.encode_image(transform(to_picture(picture))[None])
        text = model.encode_text(open_clip.tokenize(["a tree"]))
    cosine = float(F.cosine_similarity(image, text))
    assert float(row[0, 0]) == pytest.approx(100 * max(cosine, 0), abs=1e-4)
    assert not math.isclose(cosine, 0, abs_tol=1e-3)
