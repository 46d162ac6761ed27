"""The FLUX.1 backbone against diffusers' own pipeline, on the tiny checkpoint and on the published shapes."""

from __future__ import annotations

import json
import math

import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FluxPipeline, FluxTransformer2DModel, UniPCMultistepScheduler

from d4k import CheckpointError, Conditioning, ConfigError, Pipeline, Placement, create
from d4k.config import RunConfig, from_mapping
from d4k.models import Training
from d4k.plugins import registry
from d4k.sampling import SamplingSettings, sample_latents, starting_noise
from d4k.testing import check_against_diffusers, check_backbone
from d4k.training import trained_with
from d4k_flux.backbone import FluxBackbone, pack, unpack
from d4k_flux.positions import token_positions


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    """With the positions that diffusers has at every size, and texts that are quick to compute."""
    return Pipeline.from_pretrained("tiny-flux", device="cpu", positions="native", text_tokens=24)


def test_it_satisfies_the_contract(pipe):
    """The backbone passes the checks every backbone must pass."""
    check_backbone(pipe.backbone)


@pytest.mark.parametrize(
    "call",
    [
        {"width": 256, "height": 256, "guidance_scale": 4.0},
        {"width": 192, "height": 320, "guidance_scale": 1.0},
    ],
)
def test_pictures_equal_the_stock_pipeline(pipe, call):
    """Same checkpoint, prompts, seeds, steps and size: latents and pixels are those of diffusers' own pipeline."""
    check_against_diffusers(pipe.backbone, max_sequence_length=24, **call)


def test_pictures_equal_the_stock_pipeline_left_to_its_defaults():
    """At the size that the tiny model is at home in: the length of its texts is diffusers' own."""
    backbone = Pipeline.from_pretrained("tiny-flux", device="cpu").backbone

    check_against_diffusers(backbone, width=256, height=256)


def test_a_negative_prompt_is_ignored_with_a_warning(pipe):
    """Guidance is an input of the model: there is nothing to steer away from, and the user is told."""
    with pytest.warns(UserWarning, match="no negative prompt"):
        pipe.backbone.encode_text(["a tabby cat"], "a brick wall")


def test_guidance_reaches_the_model(pipe):
    """Another guidance gives another velocity, and None gives the one of the option."""
    text = pipe.backbone.encode_text(["a tabby cat"])
    noisy, sigma = torch.randn(1, 16, 16, 16), torch.tensor([0.5])
    with torch.no_grad():
        usual, same, other = (
            pipe.backbone.velocity(noisy, sigma, text, g) for g in (None, pipe.backbone.guidance, 1.0)
        )

    assert torch.equal(usual, same)
    assert not torch.equal(usual, other)


def test_a_dynamic_shift_equals_the_stock_pipeline(pipe):
    """A scheduler that shifts by resolution (FLUX.1-dev) is driven as diffusers drives it."""
    stock = FluxPipeline.from_pipe(pipe.backbone.pipeline)
    stock.scheduler = type(stock.scheduler).from_config(stock.scheduler.config, use_dynamic_shifting=True)
    backbone = FluxBackbone(pipe.backbone.source, text_tokens=24)
    backbone.attach(stock)

    check_against_diffusers(backbone, width=320, height=256, guidance_scale=1.0, max_sequence_length=24)


def _sampled(backbone, guidance):
    noise = starting_noise(backbone, [0], 128, 96)
    return sample_latents(backbone, ["a tabby cat"], noise, SamplingSettings(128, 96, steps=4, guidance=guidance))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers, with NumPy 2
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_multistep_solver_equals_the_stock_pipeline(pipe, dynamic):
    """It keeps its own spacing of noise levels, as in diffusers, also where they shift by resolution."""
    stock = FluxPipeline.from_pipe(pipe.backbone.pipeline)
    stock.scheduler = UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, use_dynamic_shifting=dynamic
    )
    backbone = FluxBackbone(pipe.backbone.source, text_tokens=24)
    backbone.attach(stock)
    expected = stock(
        "a tabby cat",
        width=128,
        height=96,
        num_inference_steps=4,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        max_sequence_length=24,
        output_type="latent",
    ).images

    ours = _sampled(backbone, guidance=1.0)

    assert (ours - unpack(expected, 12, 16)).abs().max() <= 1e-4


@pytest.mark.parametrize("positions", ["native", "interpolate"])
def test_the_published_model_takes_4096_pixels_at_f16(positions):
    """FLUX.1-dev on the meta device: one velocity of a 256x256 latent has the right shape."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(guidance_embeds=True)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=16,
        )
        encoders = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        noisy, sigma = torch.empty(1, 16, 256, 256), torch.empty(1)
        text = Conditioning({"states": torch.empty(1, 512, 4096), "pooled": torch.empty(1, 768)})
    config = transformer.config
    assert (config.num_layers, config.num_single_layers, config.num_attention_heads) == (19, 38, 24)
    backbone = FluxBackbone("black-forest-labs/FLUX.1-dev", positions=positions)
    backbone.attach(
        FluxPipeline(
            transformer=transformer,
            vae=vae,
            scheduler=None,
            text_encoder=encoders[0],
            text_encoder_2=encoders[1],
            tokenizer=None,
            tokenizer_2=None,
        )
    )

    with torch.no_grad():
        velocity = backbone.velocity(noisy, sigma, text)

    assert velocity.shape == (1, 16, 256, 256)
    assert sum(p.numel() for p in transformer.parameters()) == pytest.approx(11.9e9, rel=0.02)


def test_packing_equals_diffusers_and_is_undone():
    """Tokens are those of diffusers' pipeline, and unpacking gives the latent back."""
    latent = torch.randn(2, 16, 12, 20)

    assert torch.equal(pack(latent), FluxPipeline._pack_latents(latent, 2, 16, 12, 20))
    assert torch.equal(unpack(pack(latent), 12, 20), latent)


def test_positions_equal_diffusers():
    """Native positions are those of diffusers' pipeline; a step scales them."""
    ids = FluxPipeline._prepare_latent_image_ids(1, 6, 10, "cpu", torch.float32)

    assert torch.equal(token_positions(6, 10), ids)
    assert torch.equal(token_positions(6, 10, 0.5), ids / 2)


def test_interpolated_positions_stay_in_the_trained_range():
    """At four times the area, positions advance by a half; at or below the trained size by one."""
    backbone = Pipeline.from_pretrained("tiny-flux", device="cpu", positions="interpolate").backbone

    assert backbone._position_step(64, 64) == 0.5
    assert backbone._position_step(32, 32) == 1
    assert backbone._position_step(16, 32) == 1


@pytest.mark.parametrize(("positions", "width", "height"), [("interpolate", 1536, 2048), ("native", 64, 8208)])
def test_positions_are_exact_in_half_precision(positions, width, height):
    """The rotary tables of a bfloat16 model are those of a float32 one, to the bit."""
    tables = []
    for dtype in ("float32", "bfloat16"):
        backbone = Pipeline.from_pretrained("tiny-flux", device="cpu", dtype=dtype, positions=positions).backbone
        module = backbone.trainable
        module.pos_embed.register_forward_hook(lambda module, inputs, output: tables.append(output))
        text = backbone.encode_text(["a tabby cat"])
        module.transformer_blocks = module.single_transformer_blocks = torch.nn.ModuleList()  # positions come before
        with torch.no_grad():
            noisy = torch.zeros(1, 16, height // 8, width // 8, dtype=backbone.pipeline.dtype)
            backbone.velocity(noisy, torch.tensor([0.5]), text)

    exact, half = tables
    assert exact[0].dtype == half[0].dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(exact, half, strict=True))


def test_positions_are_the_same_in_training_as_in_sampling():
    """Both ask at interpolated positions of float32, though sampling hands over latents in bfloat16."""
    backbone = Pipeline.from_pretrained("tiny-flux", device="cpu", dtype="bfloat16", positions="interpolate").backbone
    seen = []
    backbone.trainable.pos_embed.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    text = backbone.encode_text(["a tabby cat"])
    noisy, sigma = torch.zeros(1, 16, 66, 66), torch.tensor([0.5])
    with torch.autocast("cpu", torch.bfloat16):
        backbone.velocity(noisy, sigma, text)
    sample_latents(backbone, ["a tabby cat"], noisy, SamplingSettings(528, 528, steps=1, guidance=1.0))

    training, sampling = seen
    assert torch.equal(training, sampling)
    steps = sampling[-33:, 2].diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 16 / 33))


def test_saved_models_load_in_diffusers(pipe, tmp_path):
    """`DiffusionPipeline.from_pretrained` loads what `save_pretrained` wrote, with the same weights."""
    pipe.save_pretrained(tmp_path / "model")

    stock = DiffusionPipeline.from_pretrained(tmp_path / "model")

    assert isinstance(stock, FluxPipeline)
    saved = stock.transformer.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in pipe.backbone.trainable.state_dict().items())


def test_options_survive_saving(tmp_path):
    """A model saved with interpolated positions is loaded with them."""
    Pipeline.from_pretrained("tiny-flux", device="cpu", positions="interpolate").save_pretrained(tmp_path / "model")

    assert Pipeline.from_pretrained(tmp_path / "model", device="cpu").backbone.positions == "interpolate"


def test_bfloat16_draws(pipe):
    """Weights in bfloat16 draw a picture."""
    half = Pipeline.from_pretrained("tiny-flux", device="cpu", dtype="bfloat16")

    assert half.generate("a tabby cat", width=64, height=64, steps=2)[0].size == (64, 64)


@pytest.mark.parametrize(
    ("side", "downscale", "shift"),
    [(1024, 8, None), (2048, 8, 6.3), (4096, 8, 12.6), (1024, 16, None), (2048, 16, None), (4096, 16, 6.3)],
)
def test_presets_keep_the_shift_from_growing_exponentially(side, downscale, shift):
    """Within the scheduler's range it is the scheduler's; beyond it its largest, times the ratio of the sides."""
    preset = registry().preset("flux", side, side, downscale)

    assert (preset.size, preset.shift) == (side, shift)
    assert preset.downscale in (None, downscale)
    assert preset.guidance == (3.5 if side == 1024 else 5.0)
    if shift is not None:
        assert shift == pytest.approx(math.exp(1.15) * side / downscale / 128, rel=0.01)


def test_what_a_run_trained_with_is_what_its_model_draws_with(tmp_path):
    """Text length, positions, stride, embedded guidance and shift; what is sampled otherwise is said."""
    pipe = Pipeline.from_pretrained("tiny-flux", device="cpu", text_tokens=16, positions="interpolate")
    size = {"width": 64, "height": 64, "steps": 1}
    run = pipe.train(
        dataset="sample-photos", output_dir=tmp_path / "run", loss="mse", **size, guidance=2.0, shift=3.0, save_every=0
    )
    options = {"downscale": 8, "positions": "interpolate", "temperature": "auto", "text_tokens": 16}
    card = json.loads((tmp_path / "run" / "model" / "d4k.json").read_text())
    assert card["training"] == {"width": 64, "height": 64, "guidance": 2.0, "shift": 3.0, "options": options}
    assert card["options"] == {"trained_size": 256, "steps": 28, "guidance": 2.0} | options

    again = Pipeline.from_pretrained(tmp_path / "run", device="cpu")
    recipes = [one.generate("a cat", **size)[0].info["d4k"] for one in (pipe, again)]
    assert [(recipe["guidance"], recipe["shift"]) for recipe in recipes] == [(2.0, 3.0)] * 2
    assert recipes[0] == recipes[1] | {"model": str(run.model)}
    assert (again.backbone.text_tokens, again.backbone.positions) == (16, "interpolate")

    again.save_pretrained(tmp_path / "copy")
    other = Pipeline.from_pretrained(tmp_path / "copy", device="cpu", text_tokens=24)
    said = (
        "otherwise than it was trained: text_tokens 24, trained 16; guidance 5.0, trained 2.0; shift 1.0, trained 3.0"
    )
    with pytest.warns(UserWarning, match=said):
        other.generate("a cat", guidance=5.0, shift=1.0, **size)


def test_guidance_of_training_is_that_of_the_backbone_unless_said(tmp_path):
    """A run that sets neither guidance nor shift records the embedded scale, and no shift."""
    config = from_mapping(RunConfig, {"model": "tiny-flux", "dataset": {"name": "d"}, "output_dir": "o"})
    facts = trained_with(Pipeline.from_pretrained("tiny-flux", device="cpu").backbone, config)
    options = {"downscale": 8, "positions": "interpolate", "temperature": "auto", "text_tokens": 512}
    assert facts == Training(256, 256, 3.5, None, options)


def test_a_missing_checkpoint_is_a_checkpoint_error(tmp_path):
    """A folder without weights is refused by name."""
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        create("backbone", "flux", source=str(tmp_path)).load(Placement(torch.device("cpu"), torch.float32))


@pytest.mark.parametrize("options", [{"positions": "stretch"}, {"text_tokens": 0}, {"guidance": -1}, {"steps": 0}])
def test_options_out_of_range_are_refused(options):
    """Each option says what it allows."""
    with pytest.raises(ConfigError, match=f"backbone 'flux'.*{next(iter(options))}"):
        create("backbone", "flux", source="x", **options)
