"""Rotary positions beyond the trained size: against the papers' formulas, against transformers, and in the model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline, FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxPosEmbed
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from d4k import Pipeline
from d4k.sampling import SamplingSettings, sample_latents
from d4k_flux.backbone import FluxBackbone
from d4k_flux.positions import (
    RotaryPositions,
    attach_positions,
    enlargement,
    frequencies,
    sharpening,
    token_positions,
)

EXTENDED = ("ntk", "yarn", "resonance-yarn")
AXES, THETA, TRAINED = (16, 56, 56), 10_000, 64
SIZES = [(128, 128), (256, 256), (96, 170), (300, 61), (512, 16), (65, 64)]


def published() -> FluxPosEmbed:
    """The positions of FLUX.1-dev."""
    return FluxPosEmbed(theta=THETA, axes_dim=AXES)


def rotary(positions: str, rows: int, columns: int, temperature: str = "trained", text: int = 512) -> RotaryPositions:
    module = RotaryPositions(published(), positions, temperature, TRAINED)
    module.cover(rows, columns, text)
    return module


def independent(positions: str, size: int, trained: int, scale: float) -> np.ndarray:
    """Angles a token, from the formulas of the papers, one pair of channels at a time."""
    angles = []
    for pair in range(size // 2):
        angle = 1 / THETA ** (2 * pair / size)
        if positions == "ntk":
            angle = 1 / (THETA * scale ** (size / (size - 2))) ** (2 * pair / size)
        else:
            ends = []
            for turns in (32, 1):  # the pair whose wave turns so often within the trained side
                ends.append(size * math.log(trained / (2 * math.pi * turns)) / (2 * math.log(THETA)))
            low, high = max(math.floor(ends[0]), 0), min(math.ceil(ends[1]), size - 1)
            share = min(max((pair - low) / (high - low), 0), 1)
            angle = share * angle / scale + (1 - share) * angle
            if positions == "resonance-yarn":
                angle = 2 * math.pi / np.rint(2 * math.pi / angle)
        angles.append(angle)
    return np.array(angles, dtype=np.float64)


@pytest.mark.parametrize("positions", EXTENDED)
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_cosines_and_sines_are_those_of_the_papers(positions: str, rows: int, columns: int) -> None:
    """Within 1e-6 of a calculation in NumPy, at any aspect, for the published axes."""
    scale = math.sqrt(rows * columns) / TRAINED
    row, column = (axis.ravel() for axis in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    places = np.stack([0 * row, row, column], 1).astype(np.float64)
    sizes = zip(AXES, places.T, strict=True)
    angles = np.concatenate([np.outer(at, independent(positions, size, TRAINED, scale)) for size, at in sizes], 1)

    cosines, sines = rotary(positions, rows, columns)(token_positions(rows, columns))

    assert cosines.dtype == sines.dtype == torch.float32
    assert np.abs(cosines.numpy() - np.repeat(np.cos(angles), 2, 1)).max() < 1e-6
    assert np.abs(sines.numpy() - np.repeat(np.sin(angles), 2, 1)).max() < 1e-6


@pytest.mark.parametrize("scale", [1.5, 2.0, 4.0])
@pytest.mark.parametrize(("positions", "kind"), [("yarn", "yarn"), ("ntk", "dynamic")])
@pytest.mark.parametrize("size", [16, 56, 128])
def test_frequencies_and_temperature_are_those_of_transformers(
    size: int, positions: str, kind: str, scale: float
) -> None:
    """As language models have them; a dynamic factor of 1 is the fixed one of NTK at the length in use."""
    window = 2048
    parameters = {"rope_type": kind, "rope_theta": float(THETA), "factor": scale if kind == "yarn" else 1.0}
    if kind == "yarn":
        parameters["original_max_position_embeddings"] = window
    config = LlamaConfig(
        hidden_size=size, num_attention_heads=1, head_dim=size, max_position_embeddings=window,
        rope_parameters=parameters,
    )  # fmt: skip

    theirs, gain = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=int(window * scale))

    ours = frequencies(positions, size, THETA, window, scale)
    torch.testing.assert_close(ours.float(), theirs, rtol=2e-6, atol=0)
    assert math.sqrt(sharpening("yarn" if kind == "yarn" else "trained", scale, 9, 9)) == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize("positions", EXTENDED)
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (32, 128), (16, 16), (256, 16), (1, 1)])
def test_at_or_below_the_trained_size_they_are_those_of_diffusers(positions: str, rows: int, columns: int) -> None:
    """To the bit, with every temperature."""
    ids = token_positions(rows, columns)
    want = published()(ids)

    for temperature in ("trained", "proportional", "yarn"):
        got = rotary(positions, rows, columns, temperature)(ids)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("scale", [1.01, 2.0, 4.0, 10.3])
def test_resonant_positions_repeat_exactly(scale: float) -> None:
    """Every wavelength is a whole number of tokens: so far on, a token has the same cosine and sine."""
    steps = frequencies("resonance-yarn", 56, THETA, TRAINED, scale)
    waves = 2 * math.pi / steps
    assert (waves - waves.round()).abs().max() < 1e-9
    places = torch.arange(64, dtype=torch.float64)[:, None]
    for function in (torch.cos, torch.sin):
        torch.testing.assert_close(function((places + waves.round()) * steps), function(places * steps))
    own = frequencies("native", 56, THETA, TRAINED, scale)
    assert (2 * math.pi / own).frac().abs().max() > 0.1  # the model's own do not


def test_yarn_keeps_the_highest_frequency_and_interpolates_those_that_never_turn() -> None:
    """The wave that turns ten times in the trained side is the model's own; those longer than it are divided."""
    own, yarn = (frequencies(name, 56, THETA, TRAINED, 4.0) for name in ("native", "yarn"))
    ratio = yarn / own
    assert ratio[0] == 1
    torch.testing.assert_close(ratio[2 * math.pi / own > 1.3 * TRAINED].unique(), torch.tensor([0.25]).double())
    assert (ratio.diff() <= 0).all()


def test_ntk_ends_where_interpolation_does() -> None:
    """The highest frequency is the model's own, the lowest is divided by the scale."""
    ratio = frequencies("ntk", 56, THETA, TRAINED, 4.0) / frequencies("native", 56, THETA, TRAINED, 4.0)
    assert ratio[0] == 1
    assert ratio[-1].item() == pytest.approx(0.25)


def test_axes_of_one_pair_have_nothing_to_scale() -> None:
    """Its only frequency is one radian a token; no division by zero."""
    assert frequencies("ntk", 2, THETA, TRAINED, 4.0).tolist() == [1.0]


@pytest.mark.parametrize(("rows", "columns", "scale"), [(128, 128, 2), (32, 512, 2), (64, 64, 1), (16, 16, 1)])
def test_the_scale_is_that_of_the_area(rows: int, columns: int, scale: float) -> None:
    """At any aspect; never below 1."""
    assert enlargement(rows, columns, TRAINED) == scale


def test_interpolation_divides_every_frequency() -> None:
    """Positions half as far apart are frequencies half as high: the same tables."""
    cosines, _ = published()(token_positions(128, 128, 0.5))
    halves = [np.repeat(np.outer(np.arange(128), 0.5 / THETA ** (np.arange(0, 56, 2) / 56)), 2, 1)] * 2
    last = torch.as_tensor(np.cos(np.concatenate(halves, 1)[-1]))
    torch.testing.assert_close(cosines[-1, 16:].double(), last, rtol=0, atol=1e-6)


# --- temperature


def test_proportional_attention_keeps_the_entropy() -> None:
    """Of scores that are normally distributed: what the paper derives, measured on random ones."""

    def entropy(tokens: int, sharper: float) -> float:
        generator = torch.Generator().manual_seed(0)
        scores = torch.randn(64, tokens, generator=generator, dtype=torch.float64)
        shares = (scores * sharper * 1.7).softmax(1)
        return float(-(shares * shares.log()).sum(1).mean() / math.log(tokens))

    small, large = 1024, 16 * 1024
    sharper = sharpening("proportional", 4.0, large, small)
    assert sharper == pytest.approx(math.sqrt(math.log(large, small)))
    change = abs(entropy(large, sharper) - entropy(small, 1)), abs(entropy(large, 1) - entropy(small, 1))
    assert change[0] < change[1]


class Sharper(TorchFunctionMode):
    """Multiplies the scores of the denoiser's attention; that of text encoders names a scale of its own."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention and kwargs.get("scale") is None:
            query = args[0] if args else kwargs["query"]
            kwargs = {**kwargs, "scale": self.factor / math.sqrt(query.shape[-1])}
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def parts() -> FluxPipeline:
    return Pipeline.from_pretrained("tiny-flux", device="cpu", positions="native").backbone.pipeline


def held(parts: FluxPipeline, **options: object) -> FluxBackbone:
    backbone = FluxBackbone("x", trained_size=256, **options)
    backbone.attach(parts)
    return backbone


def velocity(backbone: FluxBackbone, rows: int, columns: int) -> torch.Tensor:
    text = backbone.encode_text(["a tabby cat"])
    noisy = torch.randn(1, 16, rows, columns, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return backbone.velocity(noisy, torch.tensor([0.5]), text)


@pytest.mark.parametrize("positions", ["native", "interpolate"])
@pytest.mark.parametrize("temperature", ["proportional", "yarn"])
def test_temperature_multiplies_every_score(parts: FluxPipeline, positions: str, temperature: str) -> None:
    """Picture and text alike: as attention computes with another scale."""
    plain, sharp = held(parts, positions=positions), FluxBackbone("x", positions, temperature, trained_size=256)
    text = plain.text_tokens
    factor = {
        "proportional": math.sqrt(math.log(48 * 24 + text) / math.log(16**2 + text)),
        "yarn": (1 + math.log(math.sqrt(48 * 24) / 16) / 10) ** 2,
    }[temperature]
    usual = velocity(plain, 96, 48)
    with Sharper(factor):
        want = velocity(plain, 96, 48)

    sharp.attach(parts)
    got = velocity(sharp, 96, 48)

    assert (got - want).abs().max() < 1e-4
    assert (got - usual).abs().max() > 1e-2


# --- in the model


@pytest.mark.parametrize("positions", EXTENDED)
@pytest.mark.parametrize("temperature", ["auto", "proportional"])
def test_small_pictures_are_those_of_native_positions(parts: FluxPipeline, positions: str, temperature: str) -> None:
    """Velocities at or below the trained size are equal to the bit, larger ones are not."""
    native = held(parts)
    small, large = velocity(native, 32, 32), velocity(native, 64, 64)

    backbone = held(parts, positions=positions, temperature=temperature)

    assert torch.equal(velocity(backbone, 32, 32), small)
    assert not torch.equal(velocity(backbone, 64, 64), large)
    assert torch.equal(velocity(backbone, 32, 32), small)  # also after a large one


def test_a_pipeline_has_the_positions_of_the_backbone_that_holds_it(parts: FluxPipeline) -> None:
    """In any order, and not one wrapped in another; nothing of it is among the weights."""
    held(parts)
    own, names = parts.transformer.pos_embed, set(parts.transformer.state_dict())
    assert isinstance(own, FluxPosEmbed)
    for positions in ("yarn", "ntk", "interpolate", "resonance-yarn", "native"):
        backbone = held(parts, positions=positions)
        module = parts.transformer.pos_embed
        assert set(parts.transformer.state_dict()) == names
        if positions in EXTENDED:
            assert module.native is own
            assert backbone.rotary is module
        else:
            assert module is own
            assert backbone.rotary is None


def test_temperature_follows_positions_unless_said(parts: FluxPipeline) -> None:
    """YaRN's goes with YaRN; training records what was said, which with the positions is enough."""
    usual = {"native": "trained", "interpolate": "trained", "ntk": "trained", "yarn": "yarn", "resonance-yarn": "yarn"}
    for positions, temperature in usual.items():
        backbone = held(parts, positions=positions)
        told = backbone.trained_options
        assert (told["positions"], told["temperature"]) == (positions, "auto")
        assert getattr(backbone.rotary, "temperature", "trained") == temperature
    plain = held(parts, positions="yarn", temperature="trained")
    assert plain.rotary.temperature == plain.trained_options["temperature"] == "trained"


@pytest.mark.parametrize("positions", EXTENDED)
def test_tables_are_float32_whatever_the_model_computes_in(positions: str) -> None:
    """In bfloat16 weights, under autocast in training, and in sampling: one table, to the bit."""
    tables = []
    for dtype in ("float32", "bfloat16"):
        backbone = Pipeline.from_pretrained("tiny-flux", device="cpu", dtype=dtype, positions=positions).backbone
        module = backbone.trainable
        module.pos_embed.register_forward_hook(lambda module, inputs, output: tables.append(output))
        text = backbone.encode_text(["a tabby cat"])
        module.transformer_blocks = module.single_transformer_blocks = torch.nn.ModuleList()  # positions come before
        noisy = torch.zeros(1, 16, 130, 66, dtype=backbone.pipeline.dtype)
        with torch.autocast("cpu", torch.bfloat16):
            backbone.velocity(noisy, torch.tensor([0.5]), text)
        settings = SamplingSettings(528, 1040, steps=1, guidance=1.0)
        sample_latents(backbone, ["a tabby cat"], noisy, settings)

    assert len(tables) == 4
    for cosines, sines in tables:
        assert cosines.dtype == sines.dtype == torch.float32
        assert torch.equal(cosines, tables[0][0])
        assert torch.equal(sines, tables[0][1])


def test_processes_that_share_a_picture_share_its_scale() -> None:
    """A part of the tokens has the rows of the whole table."""
    module = rotary("resonance-yarn", 128, 96, "yarn")
    ids = torch.cat([torch.zeros(512, 3), token_positions(128, 96)])
    whole = module(ids)
    for part in (slice(0, 256), slice(512, 1024), slice(9000, None)):
        assert all(torch.equal(a[part], b) for a, b in zip(whole, module(ids[part]), strict=True))


def test_the_published_model_has_them_on_the_meta_device() -> None:
    """No value of a tensor is read, so that memory can be planned."""
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    module = attach_positions(transformer, "yarn", "proportional", TRAINED)
    assert module is not None
    module.cover(256, 256, 512)
    cosines, _ = module(torch.zeros(512 + 256**2, 3, device="meta"))
    assert (cosines.device.type, cosines.shape, cosines.dtype) == ("meta", (66_048, 128), torch.float32)


def test_saved_models_load_in_diffusers_and_in_d4k(tmp_path: Path) -> None:
    """With the same weights; d4k finds its positions again, and the options said with them."""
    pipe = Pipeline.from_pretrained("tiny-flux", device="cpu", positions="ntk", temperature="proportional")
    pipe.save_pretrained(tmp_path / "model")

    stock = DiffusionPipeline.from_pretrained(tmp_path / "model")
    again = Pipeline.from_pretrained(tmp_path / "model", device="cpu").backbone

    saved = stock.transformer.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in pipe.backbone.trainable.state_dict().items())
    assert isinstance(stock.transformer.pos_embed, FluxPosEmbed)
    assert (again.positions, again.temperature) == ("ntk", "proportional")


@pytest.mark.parametrize("way", [{}, {"adapter_rank": 2}], ids=["full", "adapter"])
def test_what_is_trained_with_yarn_is_sampled_with_it(tmp_path: Path, way: dict[str, int]) -> None:
    """A model and an adapter say so in their records; whoever samples otherwise is told."""
    pipe = Pipeline.from_pretrained("tiny-flux", device="cpu", positions="yarn", trained_size=64)
    size = {"width": 96, "height": 80, "steps": 1}
    run = pipe.train(dataset="sample-photos", output_dir=tmp_path / "run", loss="mse", **size, **way, save_every=0)
    expected = pipe.generate("a cat", **size)[0]

    again = Pipeline.from_pretrained(tmp_path / "run", device="cpu", trained_size=64)
    assert (again.backbone.positions, again.backbone.temperature) == ("yarn", "auto")
    assert again.backbone.rotary.temperature == "yarn"
    assert again.generate("a cat", **size)[0].tobytes() == expected.tobytes()

    other = Pipeline.from_pretrained(run.output_dir, device="cpu", positions="native", temperature="proportional")
    said = "than it was trained: positions native, trained yarn; temperature proportional, trained auto"
    with pytest.warns(UserWarning, match=said):
        other.generate("a cat", **size)
