"""The temperature of SD3's attention: against attention computed with another scale, and what it leaves alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, SD3Transformer2DModel
from torch.overrides import TorchFunctionMode

from d4k import Pipeline
from d4k.adapters import add_adapter
from d4k.config import AdapterSettings
from d4k.planning import shapes
from d4k_sd3.attention import ProportionalAttention, attach_temperature, sharpening
from d4k_sd3.backbone import SD3Backbone


class Sharper(TorchFunctionMode):
    """Multiplies the scores of all attention by what the logarithms of its tokens come to."""

    def __init__(self, trained: int, text: int) -> None:
        super().__init__()
        self.trained, self.text = trained, text

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, tokens = args[0], args[1].shape[2]
            text = self.text if tokens == PICTURE + self.text else 0
            factor = math.sqrt(math.log(tokens) / math.log(self.trained + text))
            kwargs = {**(kwargs or {}), "scale": factor / math.sqrt(query.shape[-1])}
        return func(*args, **(kwargs or {}))


PICTURE = 24 * 12


def transformer(**config: Any) -> SD3Transformer2DModel:
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=16, num_layers=3, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=8,
        caption_projection_dim=32, pooled_projection_dim=8, pos_embed_max_size=32, **config,
    ).eval()  # fmt: skip


def predict(model: SD3Transformer2DModel, rows: int = 48, columns: int = 24, text: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    given = (torch.randn(shape, generator=generator) for shape in ((2, 16, rows, columns), (2, text, 8), (2, 8)))
    noisy, states, pooled = given
    with torch.no_grad():
        return model(noisy, states, pooled, torch.tensor([500.0, 500.0]), return_dict=False)[0]


@pytest.mark.parametrize(
    "config",
    [{}, {"qk_norm": "rms_norm"}, {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)}],
    ids=["sd3", "sd3.5-large", "sd3.5-medium"],
)
def test_every_score_is_multiplied(config: dict[str, Any]) -> None:
    """Of joint attention and of that of the picture alone, which counts its own tokens, in all three architectures."""
    model = transformer(**config)
    with Sharper(8**2, text=7):
        want = predict(model)
    usual = predict(model)

    attach_temperature(model, "proportional", trained=8)
    got = predict(model)

    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)
    assert (got - usual).abs().max() > 1e-4


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (8, 32), (4, 4)])
def test_up_to_the_trained_size_nothing_changes(rows: int, columns: int) -> None:
    """To the bit; and to the bit again when the processors are taken away."""
    model = transformer(qk_norm="rms_norm")
    small, large = predict(model, rows, columns), predict(model)
    native = dict(model.attn_processors)

    attach_temperature(model, "proportional", trained=8)
    attach_temperature(model, "proportional", trained=8)
    assert torch.equal(predict(model, rows, columns), small)
    assert not torch.equal(predict(model), large)
    wrapped = model.attn_processors.values()
    assert all(isinstance(one, ProportionalAttention) for one in wrapped)
    assert not any(isinstance(one.native, ProportionalAttention) for one in wrapped)

    attach_temperature(model, "trained", trained=8)
    assert model.attn_processors == native
    assert torch.equal(predict(model), large)


def test_the_factor_is_the_root_of_the_ratio_of_the_logarithms() -> None:
    """Never below 1."""
    assert sharpening(4096**2, 4096) == pytest.approx(math.sqrt(2))
    assert sharpening(100, 100) == sharpening(10, 100) == 1


def test_an_adapter_reaches_sharpened_attention() -> None:
    """Its layers lie within those that the processor calls."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", temperature="proportional", trained_size=64)
    text = pipe.backbone.encode_text(["a tabby cat"])
    noisy, sigma = torch.randn(1, 16, 16, 16), torch.tensor([0.5])
    with torch.no_grad():
        before = pipe.backbone.velocity(noisy, sigma, text)
        add_adapter(pipe.backbone.trainable, AdapterSettings(rank=2))
        for name, weight in pipe.backbone.trainable.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
        after = pipe.backbone.velocity(noisy, sigma, text)
    assert not torch.equal(before, after)


def test_saved_models_load_in_diffusers_and_in_d4k(tmp_path: Path) -> None:
    """With the same weights; d4k finds the temperature again."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", temperature="proportional")
    pipe.save_pretrained(tmp_path / "model")

    stock = DiffusionPipeline.from_pretrained(tmp_path / "model")

    saved = stock.transformer.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in pipe.backbone.trainable.state_dict().items())
    again = Pipeline.from_pretrained(tmp_path / "model", device="cpu").backbone
    assert (again.temperature, again.trained_options["temperature"]) == ("proportional", "proportional")


def test_it_is_planned_on_the_meta_device() -> None:
    """The published shapes take it."""
    backbone = shapes("sd3.5-large", temperature="proportional", positions="interpolate")
    assert isinstance(backbone, SD3Backbone)
    text = backbone.encode_text(["a cat"])
    noisy = torch.empty(1, 16, 160, 160, device="meta", dtype=torch.bfloat16)
    with torch.no_grad():
        velocity = backbone.velocity(noisy, torch.empty(1, device="meta"), text)
    assert velocity.shape == noisy.shape
