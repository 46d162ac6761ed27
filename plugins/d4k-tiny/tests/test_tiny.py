"""The tiny checkpoints and the sample photographs keep what their cards promise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from d4k import ConfigError, Pipeline, create
from d4k.images import Crop, open_picture, to_float, to_tensor
from d4k.testing import check_dataset
from d4k_tiny import CHECKPOINTS
from d4k_tiny.photos import PHOTOS

MODELS = ["tiny-sd3", "tiny-flux"]


@pytest.fixture(scope="module")
def photographs() -> torch.Tensor:
    """(12, 3, 256, 256) in [-1, 1], as the models were trained on."""
    dataset, crop = create("dataset", "sample-photos"), Crop(256, 256)
    pictures = [crop(open_picture(dataset[i].source), 0) for i in range(len(dataset))]
    return torch.stack([to_float(to_tensor(picture)) for picture in pictures])


def grey32(pixels: torch.Tensor) -> torch.Tensor:
    """(B, 1024): grey, 32x32, zero mean, unit length, so that a product is a correlation."""
    small = F.interpolate(pixels.mean(1, keepdim=True), size=32, mode="area").flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True))


def test_the_photographs_satisfy_the_contract():
    """The dataset passes the checks every dataset must pass."""
    check_dataset(create("dataset", "sample-photos"))


def test_there_are_twelve_with_caption_and_licence():
    """Every photograph has its own caption, and a licence that lets anybody use it."""
    assert len(PHOTOS) == 12
    assert len({photo.caption for photo in PHOTOS}) == 12
    assert all(photo.licence.startswith(("CC0", "public domain", "no known copyright")) for photo in PHOTOS)


def test_photographs_can_be_chosen_by_name():
    """`names` takes a subset; an unknown name lists what exists."""
    assert [create("dataset", "sample-photos", names=["coffee"])[0].id] == ["coffee"]
    with pytest.raises(ConfigError, match="names must be among.*coffee.*got 'tea'"):
        create("dataset", "sample-photos", names=["tea"])


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_is_small_and_safe(model):
    """At most 20 MB, no pickled file, with a model card that names data, licence, steps and limits."""
    files = [path for path in (CHECKPOINTS / model).rglob("*") if path.is_file()]
    card = (CHECKPOINTS / model / "README.md").read_text(encoding="utf-8").lower()

    assert sum(path.stat().st_size for path in files) <= 20e6
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    assert all(word in card for word in ("data", "licence", "steps", "loss", "limits"))


@pytest.mark.parametrize("model", MODELS)
def test_the_autoencoder_reaches_28_db(model, photographs):
    """The photographs at 256x256 come back with 28 dB PSNR or better on average."""
    backbone = Pipeline.from_pretrained(model, device="cpu").backbone

    output = backbone.decode(backbone.encode_image(photographs)).clamp(-1, 1)

    psnr = 10 * torch.log10(4 / (output - photographs).square().mean((1, 2, 3)))
    assert psnr.mean() >= 28


@pytest.mark.parametrize("model", MODELS)
def test_latents_have_about_unit_variance(model, photographs):
    """Scale and shift of the autoencoder bring the latents of the photographs to mean 0 and variance 1."""
    latents = Pipeline.from_pretrained(model, device="cpu").backbone.encode_image(photographs)

    assert abs(latents.mean()) < 0.05
    assert abs(latents.std() - 1) < 0.05


@pytest.mark.parametrize("model", MODELS)
def test_every_caption_draws_its_photograph(model, photographs):
    """For 90 % of captions and four seeds, the picture is nearest to its own photograph among all."""
    pipe = Pipeline.from_pretrained(model, device="cpu")
    captions = [photo.caption for photo in PHOTOS]
    hits = 0
    for seed in range(4):
        drawn = pipe.generate(captions, seed=seed, batch_size=12)
        correlation = grey32(torch.stack([to_float(to_tensor(p)) for p in drawn])) @ grey32(photographs).T
        hits += int((correlation.argmax(1) == torch.arange(12)).sum())

    assert hits / 48 >= 0.9


@pytest.mark.parametrize(("model", "length"), [("tiny-sd3", 256), ("tiny-flux", 512)])
def test_texts_are_as_long_as_diffusers_pads_them(model, length):
    """So that a stock pipeline, left to its defaults, is asked what the model was trained on."""
    assert Pipeline.from_pretrained(model, device="cpu").backbone.text_tokens == length


@pytest.mark.parametrize("model", MODELS)
def test_larger_pictures_have_stretched_positions(model):
    """The models know parts of larger pictures at the places where they lie in the whole."""
    assert Pipeline.from_pretrained(model, device="cpu").backbone.positions == "interpolate"


def test_positions_reach_4096_pixels_at_f16():
    """`tiny-sd3` has a table of at least 128 patches a side: 4096 pixels where a latent row stands for 16."""
    config = Pipeline.from_pretrained("tiny-sd3", device="cpu").backbone.pipeline.transformer.config

    assert config.pos_embed_max_size >= 128


def test_the_pretraining_script_is_kept():
    """The script that made the weights lies beside them, with its seeds."""
    scripts = Path(__file__).parents[1] / "scripts"

    assert (scripts / "pretrain.py").is_file()
    for stage in ("text", "autoencoder", "denoisers"):
        assert "manual_seed" in (scripts / f"{stage}.py").read_text(encoding="utf-8")
