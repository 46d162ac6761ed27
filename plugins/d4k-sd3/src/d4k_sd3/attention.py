"""The temperature of SD3's attention in pictures of more tokens than those it was trained on."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["TEMPERATURES", "ProportionalAttention", "attach_temperature", "sharpening"]

TEMPERATURES = ("trained", "proportional")


def sharpening(tokens: int, trained_tokens: int) -> float:
    """What the scores of attention are multiplied by, so that its entropy stays what it was; at least 1.

    Args:
        tokens: that a token attends to.
        trained_tokens: likewise, at the trained size.

    Source: Jin et al., arXiv 2306.08645.

    >>> round(sharpening(333 + 256**2, 333 + 64**2), 3)
    1.15
    """
    return math.sqrt(max(1.0, math.log(tokens) / math.log(trained_tokens)))


class ProportionalAttention:
    """An attention processor for the blocks of a diffusers `SD3Transformer2DModel`.

    Up to the trained size it hands over to the processor it stands in for.

    Args:
        native: what it stands in for.
        trained: tokens of the pictures that the model was trained on.
    """

    def __init__(self, native: Any, trained: int) -> None:
        self.native, self.trained = native, trained

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **given: Any
    ) -> Any:
        """Tokens of the picture (B, N, D), and of the text (B, M, D) where both attend to both."""
        picture = hidden_states.shape[1]
        text = 0 if encoder_hidden_states is None else encoder_hidden_states.shape[1]
        sharper = sharpening(picture + text, self.trained + text)
        if sharper == 1:
            return self.native(attn, hidden_states, encoder_hidden_states, **given)
        streams = [_heads(attn, hidden_states, "to_q", "to_k", "to_v", "norm_q", "norm_k")]
        if encoder_hidden_states is not None:
            names = ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k")
            streams.append(_heads(attn, encoder_hidden_states, *names))
        query, key, value = (torch.cat(parts, dim=2) for parts in zip(*streams, strict=True))
        seen = F.scaled_dot_product_attention(query, key, value, scale=sharper / math.sqrt(query.shape[-1]))
        seen = seen.transpose(1, 2).flatten(2).to(query.dtype)
        shown = attn.to_out[1](attn.to_out[0](seen[:, :picture]))
        if encoder_hidden_states is None:
            return shown
        read = seen[:, picture:]
        return shown, read if attn.context_pre_only else attn.to_add_out(read)


def _heads(attn: Any, tokens: Tensor, *names: str) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one stream of tokens, each (B, heads, N, channels of a head)."""
    layers = [getattr(attn, name) for name in names]
    query, key, value = (layer(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for layer in layers[:3])
    query, key = (x if norm is None else norm(x) for x, norm in zip((query, key), layers[3:], strict=True))
    return query, key, value


def attach_temperature(transformer: Any, temperature: str, trained: int) -> None:
    """Give a `SD3Transformer2DModel` the temperature asked for, whatever it had before.

    Args:
        transformer: of diffusers.
        temperature: one of `TEMPERATURES`.
        trained: tokens a side of the pictures that the model was trained on.
    """
    before = transformer.attn_processors
    native = {name: getattr(one, "native", one) for name, one in before.items()}
    if temperature == "proportional":
        transformer.set_attn_processor({n: ProportionalAttention(one, trained**2) for n, one in native.items()})
    elif native != before:
        transformer.set_attn_processor(native)
