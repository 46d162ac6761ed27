"""The SD3 backbone against diffusers' own pipeline, on the tiny checkpoint and on the published shapes."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.models.embeddings import PatchEmbed, get_2d_sincos_pos_embed_from_grid

from d4k import CheckpointError, Conditioning, ConfigError, Pipeline, Placement, create
from d4k.plugins import registry
from d4k.sampling import check_size
from d4k.testing import check_against_diffusers, check_backbone
from d4k_sd3.backbone import SD3Backbone, stretch_positions


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return Pipeline.from_pretrained("tiny-sd3", device="cpu")


def test_it_satisfies_the_contract(pipe):
    """The backbone passes the checks every backbone must pass."""
    check_backbone(pipe.backbone)


@pytest.mark.parametrize(
    "call",
    [
        {"width": 256, "height": 256, "guidance_scale": 4.0},
        {"width": 192, "height": 320, "guidance_scale": 1.0},
        {"guidance_scale": 4.0, "negative_prompt": "a brick wall"},
    ],
)
def test_pictures_equal_the_stock_pipeline(pipe, call):
    """Same checkpoint, prompts, seeds, steps and size: latents and pixels are those of diffusers' own pipeline."""
    check_against_diffusers(pipe.backbone, max_sequence_length=24, **call)


def test_a_dynamic_shift_equals_the_stock_pipeline(pipe):
    """A scheduler that shifts by resolution (SD3.5) is driven as diffusers drives it."""
    stock = StableDiffusion3Pipeline.from_pipe(pipe.backbone.pipeline)
    stock.scheduler = type(stock.scheduler).from_config(stock.scheduler.config, use_dynamic_shifting=True)
    backbone = SD3Backbone(pipe.backbone.source)
    backbone.attach(stock)

    check_against_diffusers(backbone, width=320, height=256, guidance_scale=1.0, max_sequence_length=24)


@pytest.mark.parametrize("positions", ["native", "interpolate"])
def test_the_published_model_takes_4096_pixels_at_f16(positions):
    """SD3-medium on the meta device: one velocity of a 256x256 latent has the right shape."""
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(
            sample_size=128,
            patch_size=2,
            in_channels=16,
            num_layers=24,
            attention_head_dim=64,
            num_attention_heads=24,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            pos_embed_max_size=192,
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=16,
        )
        noisy, sigma = torch.empty(1, 16, 256, 256), torch.empty(1)
        text = Conditioning({"states": torch.empty(1, 333, 4096), "pooled": torch.empty(1, 2048)})
    parts = dict.fromkeys(
        ["text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"]
    )
    backbone = SD3Backbone("stabilityai/stable-diffusion-3-medium-diffusers", positions=positions)
    backbone.attach(StableDiffusion3Pipeline(transformer=transformer, vae=vae, scheduler=None, **parts))

    with torch.no_grad():
        velocity = backbone.velocity(noisy, sigma, text)

    assert velocity.shape == (1, 16, 256, 256)
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(2.03e9, rel=0.02)
    assert backbone.latent.max_size == (3072 if positions == "native" else None)


def test_stretched_positions_equal_the_formula():
    """At twice the trained size the table is sampled at half steps, as if sines and cosines were computed there."""
    patch = PatchEmbed(height=64, width=64, patch_size=2, in_channels=4, embed_dim=48, pos_embed_max_size=96)
    stretch_positions(patch, trained=32)

    got = patch.cropped_pos_embed(128, 128)[0]

    steps = ((torch.arange(64) - 31.5) / 2 + 47.5) / (96 / 32)
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    want = get_2d_sincos_pos_embed_from_grid(48, torch.stack([x, y])[:, None], output_type="pt")
    assert (got - want.float()).abs().max() < 0.02


def test_positions_up_to_the_trained_size_are_native():
    """Interpolation changes nothing at or below the trained size."""
    patch = PatchEmbed(height=64, width=64, patch_size=2, in_channels=4, embed_dim=48, pos_embed_max_size=96)
    native = patch.cropped_pos_embed(64, 48)
    stretch_positions(patch, trained=32)

    assert torch.equal(patch.cropped_pos_embed(64, 48), native)


def test_interpolated_positions_cover_any_size(pipe):
    """Beyond the table, native positions are refused and interpolated ones are not."""
    assert pipe.backbone.latent.max_size == 128 * 16
    with pytest.raises(ConfigError, match="2048 pixels with F8; asked for width 2064 .* downscale=16, .*interpolate"):
        pipe.generate("a tabby cat", width=2064, height=64, steps=1)
    wide = Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="interpolate")
    assert wide.generate("a tabby cat", width=2064, height=64, steps=1)[0].size == (2064, 64)


def test_longer_side_is_refused_at_every_stride_before_anything_is_computed(pipe):
    """The limits of both strides are named; 4096 pixels are within that of F16."""
    wide = Pipeline.from_pretrained("tiny-sd3", device="cpu", downscale=16)
    message = (
        "sd3 covers at most 4096 pixels with F16, 2048 pixels with F8; asked for width 8192 with F16. Choose at most"
    )
    with pytest.raises(ConfigError, match=message):
        wide.generate("a tabby cat", width=8192, height=4096, on_step=lambda step: pytest.fail("it began to draw"))
    check_size(wide.backbone, 4096, 4096)
    check_size(wide.backbone, 3072, 4096)
    check_size(wide.backbone, 4096, 2304)


def test_presets_shift_as_the_side_of_the_latent_grows():
    """Three at the 128x128 latent of 1024 pixels, twice that at 256x256; the stride decides which it is."""
    names = registry()
    found = [
        names.preset("sd3", *size) for size in ((1024, 1024, 8), (2048, 2048, 16), (2048, 2048, 8), (3072, 4096, 16))
    ]
    assert [(preset.size, preset.shift) for preset in found] == [(1024, None), (2048, None), (2048, 6.0), (4096, 6.0)]
    assert all((preset.steps, preset.guidance) == (28, 7.0) for preset in found)


def test_text_tokens_are_what_they_come_to(pipe):
    """Known after loading; more than the tokenizer takes is an error, as it would be cut in silence."""
    assert pipe.backbone.text_tokens == 24
    assert Pipeline.from_pretrained("tiny-sd3", device="cpu", text_tokens=12).backbone.text_tokens == 12
    with pytest.raises(ConfigError, match="text_tokens is 77, but the tokenizer of this model takes at most 24"):
        Pipeline.from_pretrained("tiny-sd3", device="cpu", text_tokens=77)


def test_saved_models_load_in_diffusers(pipe, tmp_path):
    """`DiffusionPipeline.from_pretrained` loads what `save_pretrained` wrote, with the same weights."""
    pipe.save_pretrained(tmp_path / "model")

    stock = DiffusionPipeline.from_pretrained(tmp_path / "model")

    assert isinstance(stock, StableDiffusion3Pipeline)
    saved = stock.transformer.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in pipe.backbone.trainable.state_dict().items())


def test_options_survive_saving(tmp_path):
    """A model saved with interpolated positions is loaded with them."""
    Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="interpolate").save_pretrained(tmp_path / "model")

    assert Pipeline.from_pretrained(tmp_path / "model", device="cpu").backbone.positions == "interpolate"


def test_bfloat16_draws(pipe):
    """Weights in bfloat16 draw a picture."""
    half = Pipeline.from_pretrained("tiny-sd3", device="cpu", dtype="bfloat16")

    assert half.generate("a tabby cat", width=64, height=64, steps=2)[0].size == (64, 64)


def test_a_missing_checkpoint_is_a_checkpoint_error(tmp_path):
    """A folder without weights is refused by name."""
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        create("backbone", "sd3", source=str(tmp_path)).load(Placement(torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("options", [{"positions": "stretch"}, {"text_tokens": 0}, {"guidance": -1}, {"steps": 0}])
def test_options_out_of_range_are_refused(options):
    """Each option says what it allows."""
    with pytest.raises(ConfigError, match=f"backbone 'sd3'.*{next(iter(options))}"):
        create("backbone", "sd3", source="x", **options)


def test_a_run_goes_on_with_the_pipeline_that_began_it(tmp_path):
    """What a run records of its training is no change of its settings: more steps can follow in the same session."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu")
    shared = {"dataset": "sample-photos", "output_dir": tmp_path / "run", "loss": "mse", "width": 64, "height": 64}
    first = pipe.train(**shared, steps=1)

    assert pipe.train(**shared, steps=2, resume=True).losses[:1] == first.losses
