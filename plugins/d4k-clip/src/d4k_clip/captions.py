"""Captions as tokens of CLIP: cut off at the length that CLIP reads, or in several parts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, TypeAlias

import torch
from attrs import frozen
from open_clip import SimpleTokenizer
from torch import Tensor

__all__ = ["Caption", "LongCaptions", "read_caption"]

LongCaptions: TypeAlias = Literal["truncate", "chunks"]
"""What becomes of a caption that is longer than CLIP reads: its beginning is read, or parts of it one after another."""


@frozen(eq=False)
class Caption:
    """What CLIP reads of a caption.

    Args:
        tokens: (K, L), a row a part.
        shares: (K,) float64, how much of what is read lies in each part; they add up to 1.
        length: tokens of the whole caption, with its begin and its end.
    """

    tokens: Tensor
    shares: Tensor
    length: int


def read_caption(text: str, context: int = 77, long_captions: LongCaptions = "truncate") -> Caption:
    """The tokens of a caption in one or more parts, each with a begin, an end, and zeros up to the length.

    Args:
        text: in any language; empty is allowed.
        context: tokens that CLIP reads at once, with begin and end.
        long_captions: "truncate" reads the first `context - 2` tokens; "chunks" reads all, in parts of so many.

    >>> caption = read_caption("a tabby cat " * 40, long_captions="chunks")
    >>> caption.length, caption.tokens.shape, [round(float(share), 3) for share in caption.shares]
    (122, torch.Size([2, 77]), [0.625, 0.375])
    """
    tokenizer = _tokenizer()
    tokens: list[int] = tokenizer.encode(text)
    room = context - 2
    parts: Sequence[list[int]] = [tokens[:room]]
    if long_captions == "chunks":
        parts = [tokens[start : start + room] for start in range(0, max(1, len(tokens)), room)]
    rows = torch.zeros(len(parts), context, dtype=torch.long)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part) + 2] = torch.tensor([tokenizer.sot_token_id, *part, tokenizer.eot_token_id])
    sizes = torch.tensor([max(1, len(part)) for part in parts], dtype=torch.float64)
    return Caption(rows, sizes / sizes.sum(), len(tokens) + 2)


@cache
def _tokenizer() -> Any:
    """The byte-pair encoding that OpenAI's CLIP and ViT-H/14 share; its vocabulary comes with open_clip."""
    return SimpleTokenizer()
