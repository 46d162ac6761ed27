"""The Sana backbone against diffusers' own pipeline, on models of random weights and on the published shape."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderDC,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
)
from PIL import Image
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from d4k import Conditioning, ConfigError, Pipeline, Placement, create
from d4k.sampling import SamplingSettings, SamplingStep, sample, sample_latents, starting_noise
from d4k.testing import check_against_diffusers, check_backbone
from d4k_sana.backbone import SanaBackbone

# diffusers hands torch tensors to NumPy in a way that NumPy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ["a tabby cat", "a rocket lifting off at night"]
SCHEDULERS = {
    "euler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    # what the published checkpoints ship
    "multistep": DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    ),
}


def tiny_autoencoder() -> AutoencoderDC:
    """Six stages, so that a latent stands for 32 pixels."""
    stages: dict[str, Any] = {}
    for half in ("encoder", "decoder"):
        stages |= {
            f"{half}_block_types": ("ResBlock",) * 5 + ("EfficientViTBlock",),
            f"{half}_block_out_channels": (4, 4, 8, 8, 8, 8),
            f"{half}_layers_per_block": (1,) * 6,
            f"{half}_qkv_multiscales": ((),) * 5 + ((5,),),
        }
    return AutoencoderDC(latent_channels=4, attention_head_dim=4, scaling_factor=0.41407, **stages)


def tiny_pipeline(scheduler: Any) -> SanaPipeline:
    """All of Sana with random weights: 40,000 in place of four billion. The tokenizer knows single characters."""
    torch.manual_seed(0)
    characters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *map(chr, range(33, 127))]
    tokenizer = GemmaTokenizer(vocab={c: i for i, c in enumerate(characters)}, merges=[])
    text_config = Gemma2Config(
        vocab_size=len(characters),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=8,
        sample_size=4,
    )
    return SanaPipeline(tokenizer, Gemma2Model(text_config), tiny_autoencoder(), transformer, scheduler)


@pytest.fixture(scope="module", params=SCHEDULERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Sana in the diffusers layout, once with each scheduler."""
    path = tmp_path_factory.mktemp(request.param)
    tiny_pipeline(SCHEDULERS[request.param]).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Pipeline:
    return Pipeline.from_pretrained(folder, device="cpu", text_tokens=16)


def stock(pipe: Pipeline, prompts: list[str], output: str = "latent", **settings: Any) -> Any:
    """What diffusers makes of the same weights; prompt i has seed i."""
    settings = {"width": 96, "height": 160, "num_inference_steps": 6, "max_sequence_length": 16} | settings
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    return pipe.backbone.pipeline(
        prompts, generator=generators, output_type=output, use_resolution_binning=False, **settings
    ).images


def ours(pipe: Pipeline, prompts: list[str], **settings: Any) -> torch.Tensor:
    """The same through the core's sampling loop."""
    on_step = settings.pop("on_step", None)
    noise = starting_noise(pipe.backbone, range(len(prompts)), 96, 160)
    chosen = SamplingSettings(96, 160, **{"steps": 6, "guidance": 4.5, **settings})
    return sample_latents(pipe.backbone, prompts, noise, chosen, on_step=on_step)


def test_it_satisfies_the_contract(pipe):
    """The backbone passes the checks every backbone must pass."""
    check_backbone(pipe.backbone)


def test_the_folder_is_recognised(pipe):
    """`model_index.json` names the pipeline, and the plugin says that it loads it."""
    assert isinstance(pipe.backbone, SanaBackbone)
    assert pipe.backbone.latent.granularity == 32


@pytest.mark.parametrize(("guidance", "negative"), [(1.0, ""), (4.5, ""), (4.5, "a brick wall")])
def test_pictures_equal_the_stock_pipeline(pipe, guidance, negative):
    """Same weights, prompts, seeds, steps and size: latents and pixels are those of diffusers' own pipeline."""
    check_against_diffusers(pipe.backbone, guidance_scale=guidance, negative_prompt=negative, max_sequence_length=16)


def test_latents_without_the_instruction_equal_the_stock_pipeline(folder):
    """The option `instruction` is what diffusers calls `complex_human_instruction`, or none of it."""
    bare = Pipeline.from_pretrained(folder, device="cpu", text_tokens=16, instruction=False)
    expected = stock(bare, PROMPTS, complex_human_instruction=None)

    assert (ours(bare, PROMPTS) - expected).abs().max() <= 1e-4
    assert (stock(bare, PROMPTS) - expected).abs().max() > 1e-3


def test_encoding_is_scaled_as_decoding_is(pipe):
    """Latents are diffusers' own times the scaling factor."""
    pixels = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        plain = pipe.backbone.pipeline.vae.encode(pixels).latent

    torch.testing.assert_close(pipe.backbone.encode_image(pixels), plain * 0.41407)


def test_every_picture_begins_with_a_scheduler_of_its_own(pipe):
    """The multistep solver keeps a history: a picture is the same after another one as beside it."""
    settings = SamplingSettings(64, 64, steps=4, guidance=4.5)
    apart, together = (list(sample(pipe.backbone, PROMPTS, [0, 1], settings, batch_size=size)) for size in (1, 2))

    assert all((a.int() - b.int()).abs().max() <= 1 for a, b in zip(apart, together, strict=True))


def test_the_last_preview_is_the_picture(pipe):
    """Both schedulers step down to noise level 0, from the level that the preview is computed with."""
    seen: list[SamplingStep] = []
    result = ours(pipe, PROMPTS, on_step=seen.append)

    torch.testing.assert_close(seen[-1].clean, result, rtol=1e-4, atol=1e-4)


def test_padding_does_not_condition(pipe):
    """What stands behind the end of a prompt is masked."""
    backbone = pipe.backbone
    noisy, sigma = torch.ones(1, 4, 2, 2), torch.tensor([0.5])
    text = backbone.encode_text(["a cat"])
    padding = text.tensors["mask"][..., None] == 0
    other = Conditioning({**text.tensors, "states": text.tensors["states"].masked_fill(padding, 9.0)})

    assert padding.any()
    with torch.no_grad():
        torch.testing.assert_close(backbone.velocity(noisy, sigma, other), backbone.velocity(noisy, sigma, text))


def test_the_empty_prompt_is_the_empty_negative_prompt(pipe):
    """Also in a batch with others; the instruction stands before prompts only."""
    text = pipe.backbone.encode_text(["a cat", ""], "").tensors

    for name in ("states", "mask"):
        assert torch.equal(text[name][1], text[f"negative_{name}"][1])
        assert not torch.equal(text[name][0], text[f"negative_{name}"][0])


def test_the_shift_of_the_checkpoint_can_be_replaced(pipe):
    """Noise levels move as `s x / (1 + (s - 1) x)`, whatever the scheduler calls s; the checkpoint's own is 3."""
    middle = {shift: float(pipe.backbone.scheduler(4, 64, 64, shift).sigmas[2]) for shift in (None, 1.0, 3.0, 9.0)}

    assert middle[None] == middle[3.0]
    for shift in (3.0, 9.0):
        assert middle[shift] == pytest.approx(shift * middle[1.0] / (1 + (shift - 1) * middle[1.0]), abs=0.01)


def test_it_trains_saves_loads_and_generates(folder, tmp_path):
    """The facade drives it through a round; diffusers loads what was saved and draws the same."""
    pipe = Pipeline.from_pretrained(folder, device="cpu", text_tokens=16)
    for i in range(2):
        Image.effect_noise((64, 64), 40 + 40 * i).convert("RGB").save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"noise {i}")
    before = [p.detach().clone() for p in pipe.backbone.trainable.parameters()]

    run = pipe.train(
        dataset="folder",
        dataset_options={"path": str(tmp_path)},
        loss="mse",
        output_dir=tmp_path / "run",
        steps=3,
        batch_size=2,
        width=64,
        height=64,
        precision="bf16",
        gradient_checkpointing=True,
    )

    assert all(math.isfinite(loss) for loss in run.losses)
    assert any(not torch.equal(a, b) for a, b in zip(before, pipe.backbone.trainable.parameters(), strict=True))
    again = Pipeline.from_pretrained(run.model, device="cpu")
    assert again.backbone.text_tokens == 16
    image = again.generate("a cat", width=64, height=96, steps=2)[0]
    assert (image.size, image.info["d4k"]["guidance"]) == ((64, 96), 4.5)
    loaded = SanaPipeline.from_pretrained(run.model)
    expected = stock(SimpleNamespace(backbone=SimpleNamespace(pipeline=loaded)), PROMPTS)
    assert (ours(again, PROMPTS) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_draws(folder, dtype):
    """Where float16 is asked for, text encoder and autoencoder are held in bfloat16, whose range they need."""
    half = Pipeline.from_pretrained(folder, device="cpu", dtype=dtype, text_tokens=16)
    parts = half.backbone.pipeline

    assert (parts.vae.dtype, parts.text_encoder.dtype) == (torch.bfloat16, torch.bfloat16)
    assert parts.transformer.dtype == getattr(torch, dtype)
    assert half.generate("a cat", width=64, height=64, steps=2)[0].size == (64, 64)


def test_a_bound_on_memory_is_not_ignored_in_silence(folder):
    """This autoencoder has none, and says so."""
    backbone = create("backbone", "sana", source=str(folder))
    with pytest.warns(UserWarning, match="memory_gb is ignored"):
        backbone.load(Placement(torch.device("cpu"), torch.float32, memory_gb=1.0))


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("instruction", "yes", "true or false"), ("text_tokens", 0, "a whole number of at least 1")],
)
def test_options_out_of_range_are_refused(option, value, allowed):
    """Each option says what it allows."""
    with pytest.raises(ConfigError, match=f"backbone 'sana': {option} must be {allowed}, got {value!r}"):
        create("backbone", "sana", source="x", **{option: value})


def test_the_published_model_takes_4096_pixels():
    """Sana-1.6B on the meta device: one velocity of a 128x128 latent has the right shape."""
    backbone = SanaBackbone("Efficient-Large-Model/Sana_1600M_4Kpx_BF16_diffusers")
    with torch.device("meta"):
        backbone.trainable = SanaTransformer2DModel(sample_size=128)
        noisy, sigma = torch.empty(1, 32, 128, 128), torch.empty(1)
        text = Conditioning({"states": torch.empty(1, 300, 2304), "mask": torch.ones(1, 300)})
    backbone.pipeline = SimpleNamespace(transformer=backbone.trainable, vae_scale_factor=32)

    with torch.no_grad():
        velocity = backbone.velocity(noisy, sigma, text)

    assert velocity.shape == (1, 32, 128, 128)
    assert sum(p.numel() for p in backbone.trainable.parameters()) == pytest.approx(1.6e9, rel=0.02)
    assert (backbone.defaults.size, backbone.latent.max_size) == (4096, None)
