"""What the cache does not store comes back bit by bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from d4k.store.codec import pack, unpack

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Of any dtype and shape, with zeros, negative zeros and NaN, and with rows that repeat or end in zeros."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shape = draw(st.lists(st.integers(0, 5), max_size=4))
    values = torch.tensor([0.0, 0.0, -0.0, 1.5, float("nan"), 3.0])
    tensor = values[torch.randint(0, len(values), shape, generator=generator)]
    if tensor.ndim > 1 and tensor.numel():
        tensor[..., draw(st.integers(0, shape[-1])) :] = 0
        rows = tensor.reshape(-1, shape[-1])
        rows[draw(st.integers(0, len(rows) - 1)) :] = rows[-1].clone()
        tensor = rows.reshape(shape)
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]))
    return tensor.nan_to_num().to(dtype) if dtype in (torch.int64, torch.bool) else tensor.to(dtype)


@given(tensors(), st.sampled_from(DTYPES))
def test_a_tensor_comes_back_as_the_cast_there_and_back(tensor: Tensor, dtype: torch.dtype) -> None:
    stored, layout = pack(tensor, dtype)
    found = unpack(stored, layout)
    wanted = tensor.to(dtype).to(tensor.dtype) if tensor.is_floating_point() else tensor
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    assert torch.equal(bits(found), bits(wanted))
    assert stored.numel() <= tensor.numel()


def test_the_padding_of_clip_to_the_width_of_t5_is_not_stored() -> None:
    states = torch.randn(1, 333, 4096, generator=torch.Generator().manual_seed(0))
    states[:, :77, 2048:] = 0  # as StableDiffusion3Pipeline joins them
    stored, _ = pack(states, torch.bfloat16)
    assert stored.numel() == 77 * 2048 + 256 * 4096


def test_rows_that_repeat_at_the_end_are_stored_once() -> None:
    states = torch.ones(1, 300, 64)
    states[0, :20] = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    assert pack(states, torch.float32)[0].numel() == 21 * 64
    mask = torch.tensor([[True] * 20 + [False] * 280])
    assert torch.equal(unpack(*pack(mask, torch.float32)), mask)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_padding_that_differ_are_content_and_stay(dtype: torch.dtype) -> None:
    states = torch.ones(1, 300, 64).cumsum(1)
    assert pack(states, dtype)[0].numel() >= len(states[0].to(dtype).unique(dim=0)) * 64
    assert torch.equal(unpack(*pack(states, dtype)), states.to(dtype).float())
