"""Values of small tensors beside the meta device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import CogView4Transformer2DModel, Lumina2Transformer2DModel, QwenImageTransformer2DModel
from diffusers.models.transformers.transformer_cogview4 import CogView4TrainingAttnProcessor
from torch import Tensor

from d4k import ConfigError
from d4k.models import Known, UnknownValueError
from d4k.planning import trace

TEXT, SIDE, BATCH = 7, 16, 2


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def mask(dtype: torch.dtype = torch.int64, length: int = TEXT) -> Tensor:
    return meta(BATCH, length, dtype=dtype)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda ones: ones.sum(1).tolist(), [TEXT, TEXT]),
        (lambda ones: ones[:, 2:].sum().item(), BATCH * (TEXT - 2)),
        (lambda ones: int(ones.bool().any(1).long().argmax()), 0),
        (lambda ones: (ones.cumsum(1) * 2)[0].cpu().tolist(), [2 * (i + 1) for i in range(TEXT)]),
        (lambda ones: bool(ones.all()), True),
        (lambda ones: ones.nonzero().shape, (BATCH * TEXT, 2)),
        (lambda ones: meta(BATCH, TEXT, 3)[ones.bool()].shape, (BATCH * TEXT, 3)),
        (lambda ones: meta(TEXT, 3)[ones[0].bool()].shape, (TEXT, 3)),
        (lambda ones: torch.zeros_like(ones).masked_fill_(ones.bool(), 5).max().item(), 5),
        (lambda ones: torch.arange(4, device="meta").masked_select(torch.arange(4, device="meta") > 1).shape, (2,)),
        (lambda ones: torch.tensor([3, 4]).to("meta").tolist(), [3, 4]),
        (lambda ones: torch.empty(3, device="meta").fill_(2).sum().item(), 6.0),
        (lambda ones: torch.full((2, 2), 1.5, device="meta")[1].sum().item(), 3.0),
    ],
)
def test_what_follows_from_known_values_can_be_read(read: Callable[[Tensor], Any], value: Any) -> None:
    """Through views, casts, and writing in place."""
    ones = mask()
    with Known([ones]):
        assert read(ones) == value


def test_a_slice_that_is_written_changes_the_whole() -> None:
    """Views share their values as they share their memory."""
    with Known():
        whole = torch.zeros(4, dtype=torch.int64, device="meta")
        whole[1:3] = torch.arange(5, 7, device="meta")
        assert whole.tolist() == [0, 5, 6, 0]


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: torch.empty(3, device="meta").sum().item(),
        lambda x: torch.empty(3, device="meta")[:2].fill_(1).sum().item(),
        lambda x: x[x > 0],
        lambda x: torch.zeros(3, device="meta").copy_(x).sum().item(),
        lambda x: torch.zeros(3, device="meta").bernoulli_(0.5).sum().item(),
    ],
)
def test_what_is_not_known_is_refused(read: Callable[[Tensor], Any]) -> None:
    """Also what was known before it was overwritten, and what is random."""
    unknown = meta(3)
    with Known(), pytest.raises(UnknownValueError, match="planning does not have"):
        read(unknown)


def test_large_tensors_are_not_followed() -> None:
    """They would take the memory that planning does without."""
    with Known():
        large = torch.zeros(2**22, device="meta")
        with pytest.raises(ConfigError, match="reads values"):
            large.sum().item()


def test_values_are_forgotten_with_their_memory() -> None:
    """A trace of a deep model does not gather them."""
    with Known() as known:
        kept = torch.zeros(2, device="meta")
        for _ in range(3):
            torch.ones(3, device="meta").sum()
        assert len(known.values) == 1
        assert kept.tolist() == [0, 0]


def test_values_beside_the_trace_are_not_counted() -> None:
    """Bytes are those on the meta device."""
    ones = mask()
    assert trace(lambda: ones * 2, ones=[ones]).peak == trace(lambda: ones * 2).peak == BATCH * TEXT * 8


def lumina(ones: Tensor) -> Callable[[], Tensor]:
    with torch.device("meta"):
        model = Lumina2Transformer2DModel(
            patch_size=2, in_channels=4, hidden_size=24, num_layers=1, num_refiner_layers=1, num_attention_heads=3,
            num_kv_heads=1, multiple_of=2, axes_dim_rope=(4, 2, 2), axes_lens=(128, 128, 128), cap_feat_dim=8,
        )  # fmt: skip
    model.train().enable_gradient_checkpointing()
    text = meta(BATCH, TEXT, 8)
    return lambda: model(meta(BATCH, 4, SIDE, SIDE), meta(BATCH), text, ones, return_dict=False)[0]


def qwen(ones: Tensor) -> Callable[[], Tensor]:
    with torch.device("meta"):
        model = QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=3,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        )  # fmt: skip
    image, text = meta(BATCH, (SIDE // 2) ** 2, 16), meta(BATCH, TEXT, 16)
    shapes = [(1, SIDE // 2, max(ones.sum(1).tolist()) + 1)] * BATCH  # the pipelines before 0.37 count the text so
    assert shapes[0][-1] == SIDE // 2
    return lambda: model(image, text, ones, meta(BATCH), shapes, return_dict=False)[0]


def cogview(ones: Tensor) -> Callable[[], Tensor]:
    with torch.device("meta"):
        model = CogView4Transformer2DModel(
            in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=4, out_channels=4,
            text_embed_dim=8, time_embed_dim=8, condition_dim=4,
        )  # fmt: skip
    for block in model.transformer_blocks:
        block.attn1.set_processor(CogView4TrainingAttnProcessor())
    noisy, sizes = meta(BATCH, 4, SIDE, SIDE), meta(BATCH, 2)
    # its masks are of int32; each sample is a batch of its own, so that it reads how long they are
    text = ones.int()
    packed = {
        "text_attn_mask": text,
        "latent_attn_mask": torch.ones(BATCH, (SIDE // 2) ** 2, dtype=torch.int32, device="meta"),
        "batch_flag": torch.arange(BATCH, device="meta"),
    }
    rope = [model.rope(noisy[:1])] * BATCH
    return lambda: model(
        noisy, meta(BATCH, TEXT, 8), meta(BATCH), sizes, sizes, sizes,
        attention_kwargs=packed, image_rotary_emb=rope, return_dict=False,
    )[0]  # fmt: skip


@pytest.mark.parametrize("model", [lumina, qwen, cogview])
def test_models_that_read_their_masks_are_traced(model: Callable[[Tensor], Callable[[], Tensor]]) -> None:
    """Forward and backward, with the text as long as the mask."""
    ones = mask()
    found = trace(lambda: model(ones)(), ones=[ones])
    assert found.peak >= found.kept > 0
    assert found.flops > 0


@pytest.mark.parametrize("model", [lumina, cogview])
def test_without_the_mask_such_a_model_is_refused(model: Callable[[Tensor], Callable[[], Tensor]]) -> None:
    """In a sentence, not with an error of torch."""
    ones = mask()
    with pytest.raises(ConfigError, match="values"):
        trace(lambda: model(ones)())
