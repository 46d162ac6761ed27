"""What a computation on meta tensors would take."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from d4k.planning import trace

ROWS, WIDTH = 1000, 64


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def layers(count: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(count))).to("meta")


def test_bytes_are_counted_while_something_refers_to_them() -> None:
    """A block's input, its product and its result, however long the chain is; weights are not counted."""
    model, inputs = layers(5), meta(ROWS, WIDTH)
    with torch.no_grad():
        found = trace(lambda: model(inputs))
    assert found.peak == 3 * 4 * ROWS * WIDTH
    assert found.kept == 4 * ROWS * WIDTH


def test_operations_are_two_for_each_multiplication() -> None:
    """A linear layer has rows x in x out of them, and three times as many with its backward pass."""
    model, inputs = nn.Linear(WIDTH, 2 * WIDTH, device="meta"), meta(ROWS, WIDTH).requires_grad_()
    forward = 2 * ROWS * WIDTH * 2 * WIDTH
    with torch.no_grad():
        assert trace(lambda: model(inputs)).flops == forward
    assert trace(lambda: model(inputs)).flops == 3 * forward


@pytest.mark.parametrize("masked", [False, True])
def test_attention_holds_no_matrix_of_scores(masked: bool) -> None:
    """Result and one sum a row are held; the operations are those of both products."""
    tokens, heads, depth = 4096, 2, 32
    query = meta(1, heads, tokens, depth)
    mask = meta(tokens, tokens) if masked else None
    found = trace(lambda: F.scaled_dot_product_attention(query, query, query, attn_mask=mask))
    assert found.flops == 4 * heads * tokens**2 * depth
    assert found.kept < 2 * 4 * heads * tokens * depth


def test_attention_is_differentiated_without_the_matrix() -> None:
    """Also in the backward pass."""
    query = meta(1, 2, 4096, 32).requires_grad_()
    found = trace(lambda: F.scaled_dot_product_attention(query, query, query))
    assert found.peak < 4 * 4096**2


def test_checkpointing_trades_operations_for_memory() -> None:
    """Checkpointed blocks keep their inputs only, and are computed twice."""
    model, inputs = layers(6), meta(ROWS, WIDTH).requires_grad_()

    def lean() -> torch.Tensor:
        x = inputs
        for block in model:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    plain, checked = trace(lambda: model(inputs)), trace(lean)
    model.zero_grad(set_to_none=True)
    assert checked.kept == plain.kept  # ReLU keeps its result, which is the next layer's input
    assert checked.flops > plain.flops


@pytest.mark.parametrize("checkpointed", [False, True])
def test_mixed_precision_is_that_of_autocast(checkpointed: bool) -> None:
    """Dtypes of results and gradients are those of a real run under autocast."""
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
    seen: list[torch.dtype] = []
    for layer in model:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))

    def run(inputs: torch.Tensor) -> torch.Tensor:
        return checkpoint(model, inputs, use_reentrant=False) if checkpointed else model(inputs)

    model.to("meta")
    trace(lambda: run(meta(ROWS, WIDTH)), torch.bfloat16)
    assert seen[:3] == [torch.bfloat16, torch.float32, torch.bfloat16]  # a norm is in float32 on GPUs
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
