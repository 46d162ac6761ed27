"""The SD3 backbone against diffusers' own pipeline, on the tiny checkpoint and on the published shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchHeunDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
)
from diffusers.models.embeddings import PatchEmbed, get_2d_sincos_pos_embed_from_grid

from d4k import CheckpointError, Conditioning, ConfigError, Pipeline, Placement, create
from d4k.plugins import registry
from d4k.sampling import SamplingSettings, check_size, sample_latents, starting_noise
from d4k.testing import check_against_diffusers, check_backbone
from d4k_sd3.backbone import SD3Backbone
from d4k_sd3.positions import stretch_positions


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    """With the positions that diffusers has at every size, and texts that are quick to compute."""
    return Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="native", text_tokens=24)


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


def test_pictures_equal_the_stock_pipeline_left_to_its_defaults():
    """At the size that the tiny model is at home in: the length of its texts is diffusers' own."""
    backbone = Pipeline.from_pretrained("tiny-sd3", device="cpu").backbone

    check_against_diffusers(backbone, width=256, height=256)


def test_a_dynamic_shift_equals_the_stock_pipeline(pipe):
    """A scheduler that shifts by resolution (SD3.5) is driven as diffusers drives it."""
    stock = StableDiffusion3Pipeline.from_pipe(pipe.backbone.pipeline)
    stock.scheduler = type(stock.scheduler).from_config(stock.scheduler.config, use_dynamic_shifting=True)
    backbone = SD3Backbone(pipe.backbone.source, text_tokens=24)
    backbone.attach(stock)

    check_against_diffusers(backbone, width=320, height=256, guidance_scale=1.0, max_sequence_length=24)


def _sampled(backbone, guidance):
    noise = starting_noise(backbone, [0], 128, 96)
    return sample_latents(backbone, ["a tabby cat"], noise, SamplingSettings(128, 96, steps=4, guidance=guidance))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers, with NumPy 2
@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchHeunDiscreteScheduler(shift=3.0),
        DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
        UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_other_solvers_equal_the_stock_pipeline(pipe, scheduler):
    """A second-order or multistep scheduler in the model is driven as diffusers drives it."""
    stock = StableDiffusion3Pipeline.from_pipe(pipe.backbone.pipeline)
    stock.scheduler = scheduler
    backbone = SD3Backbone(pipe.backbone.source, text_tokens=24)
    backbone.attach(stock)
    expected = stock(
        "a tabby cat",
        width=128,
        height=96,
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(0),
        max_sequence_length=24,
        output_type="latent",
    ).images

    ours = _sampled(backbone, guidance=4.0)

    assert (ours - expected).abs().max() <= 1e-4


@pytest.fixture(scope="module")
def meta_medium() -> Callable[[str], SD3Backbone]:
    """SD3-medium on the meta device, with either kind of positions."""

    def build(positions: str) -> SD3Backbone:
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
        parts = dict.fromkeys(
            ["text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"]
        )
        backbone = SD3Backbone("stabilityai/stable-diffusion-3-medium-diffusers", positions=positions)
        backbone.attach(StableDiffusion3Pipeline(transformer=transformer, vae=vae, scheduler=None, **parts))
        return backbone

    return build


@pytest.mark.parametrize("positions", ["native", "interpolate"])
def test_the_published_model_takes_4096_pixels_at_f16(meta_medium, positions):
    """SD3-medium on the meta device: one velocity of a 256x256 latent has the right shape."""
    backbone = meta_medium(positions)
    with torch.device("meta"):
        noisy, sigma = torch.empty(1, 16, 256, 256), torch.empty(1)
        text = Conditioning({"states": torch.empty(1, 333, 4096), "pooled": torch.empty(1, 2048)})

    with torch.no_grad():
        velocity = backbone.velocity(noisy, sigma, text)

    assert velocity.shape == (1, 16, 256, 256)
    assert sum(p.numel() for p in backbone.trainable.parameters()) == pytest.approx(2.03e9, rel=0.02)
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


def medium() -> PatchEmbed:
    """The position table of SD3-medium, 192 entries a side, of fewer channels; interpolated from 64 patches a side."""
    patch = PatchEmbed(height=128, width=128, patch_size=2, in_channels=1, embed_dim=16, pos_embed_max_size=192)
    stretch_positions(patch, trained=64)
    return patch


@pytest.mark.parametrize(
    ("width", "height"),
    [(3200, 320), (320, 3200), (3088, 16), (16, 3088), (16384, 16), (4096, 4096), (4096, 448), (4096, 3072), (16, 16)],
)
def test_interpolated_positions_cover_every_aspect(width, height):
    """On the table of SD3-medium each patch has a place of its own, also beyond 9:1 and where a side exceeds it."""
    got = medium().cropped_pos_embed(height // 8, width // 8)[0]

    rows, columns = height // 16, width // 16
    assert got.shape == (rows * columns, 16)
    grid = got.reshape(rows, columns, 16)
    for line in (grid[0], grid[:, 0]):
        assert (line.diff(dim=0).abs().amax(1) > 1e-4).all()


@pytest.mark.parametrize(("rows", "columns"), [(128, 128), (256, 96), (90, 200), (250, 30)])
def test_positions_within_nine_to_one_are_as_they_were(rows, columns):
    """Where the table covered an image before, the same entries are read, to the bit."""
    patch = medium()
    table = patch.pos_embed.reshape(1, 192, 192, -1).permute(0, 3, 1, 2)
    step = 64 / (rows * columns) ** 0.5
    axes = [(torch.arange(n) - (n - 1) / 2) * step * 2 / 192 for n in (rows, columns)]
    y, x = torch.meshgrid(*axes, indexing="ij")
    grid = torch.stack([x, y], -1)[None].float()
    want = F.grid_sample(table, grid, mode="bicubic", padding_mode="border", align_corners=False)

    assert torch.equal(patch.cropped_pos_embed(2 * rows, 2 * columns)[0], want.flatten(2)[0].T)


def test_a_side_that_is_not_stretched_is_that_of_diffusers():
    """Only the side that exceeds the table takes smaller steps; across it lie the entries that a crop has."""
    patch = medium()
    long = patch.cropped_pos_embed(2 * 5, 2 * 400)[0].reshape(5, 400, 16)
    crop = PatchEmbed.cropped_pos_embed(patch, 2 * 5, 2 * 192)[0].reshape(5, 192, 16)

    torch.testing.assert_close(long[:, 0], crop[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(long[:, -1], crop[:, -1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), [(128, 128), (20, 200), (512, 8), (8, 300)])
def test_stretched_positions_are_computed_in_float32(rows, columns):
    """From a table in bfloat16 as from the same numbers in float32, rounded once; under autocast as without."""
    full, half = medium(), medium().to(torch.bfloat16)
    full.pos_embed.copy_(half.pos_embed)

    want, got = (patch.cropped_pos_embed(2 * rows, 2 * columns) for patch in (full, half))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = full.cropped_pos_embed(2 * rows, 2 * columns)

    assert (want.dtype, got.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(got, want.bfloat16())
    assert torch.equal(mixed, want)


def test_the_published_model_takes_any_aspect(meta_medium):
    """SD3-medium at full size on the meta device, 3200x320 pixels."""
    noisy, sigma = torch.empty(1, 16, 40, 400, device="meta"), torch.empty(1, device="meta")
    states, pooled = torch.empty(1, 333, 4096, device="meta"), torch.empty(1, 2048, device="meta")
    backbone = meta_medium("interpolate")

    with torch.no_grad():
        velocity = backbone.velocity(noisy, sigma, Conditioning({"states": states, "pooled": pooled}))

    assert velocity.shape == noisy.shape


def test_what_covers_larger_sizes_is_said_where_there_is_such_an_option(pipe):
    """With native positions; interpolated ones have no limit."""
    assert "positions='interpolate'" in pipe.backbone.latent.beyond
    wide = Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="interpolate").backbone.latent
    assert (wide.max_size, wide.beyond) == (None, "")


def test_positions_are_those_of_the_backbone_that_holds_the_pipeline():
    """A pipeline that a backbone stretched the positions of has native ones again in another backbone."""
    parts = Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="native").backbone.pipeline
    found = []
    for positions in ("native", "interpolate", "native"):
        SD3Backbone("x", positions=positions, trained_size=256).attach(parts)
        found.append(parts.transformer.pos_embed.cropped_pos_embed(64, 64))

    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_a_trained_size_below_one_token_is_refused():
    """Before anything is computed."""
    with pytest.raises(ConfigError, match="trained_size is 15, but a token of this model is 16 pixels"):
        Pipeline.from_pretrained("tiny-sd3", device="cpu", trained_size=15)


def test_interpolated_positions_cover_any_size(pipe):
    """Beyond the table, native positions are refused and interpolated ones are not."""
    assert pipe.backbone.latent.max_size == 128 * 16
    with pytest.raises(ConfigError, match="2048 pixels with F8; asked for width 2064 .* downscale=16, .*interpolate"):
        pipe.generate("a tabby cat", width=2064, height=64, steps=1)
    wide = Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="interpolate")
    for width, height in ((2064, 64), (2304, 16)):
        [picture] = wide.generate("a tabby cat", stages=[(width, height)], steps=1)
        assert picture.size == (width, height)


def test_longer_side_is_refused_at_every_stride_before_anything_is_computed(pipe):
    """The limits of both strides are named; 4096 pixels are within that of F16."""
    wide = Pipeline.from_pretrained("tiny-sd3", device="cpu", positions="native", downscale=16)
    message = (
        "sd3 covers at most 4096 pixels with F16, 2048 pixels with F8; asked for width 8192 with F16. Choose at most"
    )
    with pytest.raises(ConfigError, match=message):
        wide.generate("a tabby cat", width=8192, height=4096, on_step=lambda step: pytest.fail("it began to draw"))
    check_size(wide.backbone, 4096, 4096)
    check_size(wide.backbone, 3072, 4096)
    check_size(wide.backbone, 4096, 2304)


@pytest.mark.parametrize(
    ("side", "downscale", "shift"),
    [(1024, 8, None), (2048, 8, 6.0), (4096, 8, 12.0), (1024, 16, None), (2048, 16, None), (4096, 16, 6.0)],
)
def test_presets_shift_as_the_side_of_the_latent_grows(side, downscale, shift):
    """Three at the 128x128 latent of 1024 pixels, twice that at 256x256; no stride gets the shift of the other."""
    preset = registry().preset("sd3", side, side, downscale)

    assert (preset.size, preset.shift) == (side, shift)
    assert preset.downscale in (None, downscale)
    assert (preset.steps, preset.guidance) == (28, 7.0)
    if shift is not None:
        assert shift == 3 * side / downscale / 128


def test_text_tokens_are_what_they_come_to(pipe):
    """Known after loading; more than the tokenizer takes is an error, as it would be cut in silence."""
    assert pipe.backbone.text_tokens == 24
    assert Pipeline.from_pretrained("tiny-sd3", device="cpu").backbone.text_tokens == 256
    with pytest.raises(ConfigError, match="text_tokens is 513, but the tokenizer of this model takes at most 512"):
        Pipeline.from_pretrained("tiny-sd3", device="cpu", text_tokens=513)


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
