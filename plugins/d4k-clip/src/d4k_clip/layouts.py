"""CLIP weights as transformers names them, under the names of open_clip.

The networks are the same; transformers keeps query, key and value apart, and stores projections transposed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["as_open_clip"]

_MARK = "vision_model.embeddings.class_embedding"
_EXTRA = {"input_resolution", "context_length", "vocab_size"}
"""What OpenAI's own files hold beside the weights."""

_WHOLE = {
    "logit_scale": "logit_scale",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_TOWERS = {"vision_model.encoder.layers.": "visual.transformer.resblocks."}
_TOWERS |= {"text_model.encoder.layers.": "transformer.resblocks."}
_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def as_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of CLIP by the names of open_clip.

    Args:
        state: as open_clip, OpenAI or transformers name it. A name that is not known is kept, so that loading tells.
    """
    if _MARK not in state:
        return {name: tensor for name, tensor in state.items() if name not in _EXTRA}
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".position_ids"):
            continue
        if name in _PROJECTIONS:
            found[_PROJECTIONS[name]] = tensor.T.contiguous()
        elif ".self_attn.q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            found[_block(name.replace("self_attn.q_proj.", "attn.in_proj_"))] = torch.cat(parts)
        elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
            found[_WHOLE.get(name) or _block(name)] = tensor
    return found


def _block(name: str) -> str:
    """The name of what belongs to a layer of one of the two towers."""
    for prefix, own in _TOWERS.items():
        if name.startswith(prefix):
            layer, _, part = name.removeprefix(prefix).partition(".")
            stem, _, kind = part.rpartition(".")
            return f"{own}{layer}.{_PARTS[stem]}.{kind}" if stem in _PARTS else f"{own}{layer}.{part}"
    return name
