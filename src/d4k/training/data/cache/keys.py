"""What an entry of the cache is known by: a digest of everything that its values depend on.

Whatever could change a latent or an encoded caption is in its key. So a change never finds an old entry, and whoever
finds an entry may use it, whichever run, folder or name it was made for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from d4k.images import Cut
from d4k.models import AUTOENCODER
from d4k.protocols import Backbone
from d4k.store import BYTES, FORMAT, Group, digest

__all__ = ["Keys", "latent_group", "make_keys", "weights_digest"]

RELEASE = "transformers_version"  # in every configuration of transformers
CHUNK = 2**26
ELSEWHERE = {"latent": ("text_tokens", "positions", "temperature"), "text": ("downscale", "positions", "temperature")}
"""Options of a backbone that a kind of entry does not depend on; one that is not known here is taken to matter."""


@frozen
class Keys:
    """Makes the keys of one model's entries.

    Args:
        latents: what the latents have in common.
        texts: what the encoded captions have in common.
    """

    latents: Group
    texts: Group

    def latent(self, picture: str, cut: Cut, width: int, height: int) -> str:
        """The key of one view of a picture.

        Args:
            picture: digest of the bytes of its file.
            cut: what is taken of it.
            width: in pixels, after the cut was resized.
            height: likewise.
        """
        return digest(_of(self.latents), picture, cut.box, cut.mirrored, width, height)

    def text(self, caption: str) -> str:
        """The key of a caption."""
        return digest(_of(self.texts), caption)


def make_keys(backbone: Backbone, dtype: str) -> Keys:
    """Look at the models of a backbone; reads all of their weights once.

    Args:
        backbone: loaded.
        dtype: of the cache, such as "bfloat16".
    """
    parts = {name: part for name, part in backbone.components.items() if part is not backbone.trainable}
    texts = {name: part for name, part in parts.items() if name != AUTOENCODER}
    text = digest(_models(texts), _tokenizers(backbone), *_common(backbone, "text"))
    return Keys(latent_group(backbone, dtype), Group("text", text, dtype))


def latent_group(backbone: Backbone, dtype: str) -> Group:
    """What the latents of a backbone have in common; reads the weights of its autoencoder once."""
    parts = {name: part for name, part in backbone.components.items() if part is not backbone.trainable}
    encoder = {name: part for name, part in parts.items() if name == AUTOENCODER}
    moments = hasattr(backbone, "encode_posterior")
    latent = digest(_models(encoder), backbone.latent.downscale, moments, *_common(backbone, "latent"))
    return Group("latent", latent, dtype)


def weights_digest(module: torch.nn.Module) -> str:
    """A digest of the names, dtypes, shapes and values of a module's weights and buffers."""
    tensors = dict(sorted(module.state_dict().items()))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(_tensor_digest, tensors.values()))
    return digest(list(zip(tensors, found, strict=True)))


def _tensor_digest(tensor: Tensor) -> str:
    hasher = hashlib.blake2b(f"{tensor.dtype}{tuple(tensor.shape)}".encode(), digest_size=BYTES)
    for part in _pieces(tensor):
        hasher.update(part.cpu().contiguous().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor in parts that are worth a copy from a GPU."""
    flat, size = tensor.detach().reshape(-1), max(1, CHUNK // tensor.element_size())
    for first in range(0, flat.numel(), size):
        yield flat[first : first + size]


def _of(group: Group) -> tuple[int, str, str, str]:
    return FORMAT, group.kind, group.model, group.dtype


def _models(parts: Mapping[str, torch.nn.Module]) -> list[Any]:
    return [(name, _class(part), _config(part), weights_digest(part)) for name, part in sorted(parts.items())]


def _class(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _config(part: Any) -> Any:
    """A model's configuration, without the folder that it happened to be read from."""
    config = getattr(part, "config", {})
    plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return {name: value for name, value in plain.items() if not name.startswith("_") and name != RELEASE}


def _common(backbone: Backbone, kind: str) -> tuple[str, Any]:
    options = {name: value for name, value in backbone.trained_options.items() if name not in ELSEWHERE[kind]}
    return _class(backbone), options


def _tokenizers(backbone: Any) -> list[Any]:
    """What cuts captions into tokens, for a backbone that holds a diffusers pipeline."""
    parts = getattr(getattr(backbone, "pipeline", None), "components", {})
    return [(name, _tokenizer(part)) for name, part in sorted(parts.items()) if hasattr(part, "get_vocab")]


def _tokenizer(tokenizer: Any) -> Any:
    whole = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(whole.to_str()) if whole is not None else tokenizer.get_vocab()
    for changing in ("truncation", "padding") if whole is not None else ():
        rules.pop(changing, None)  # left over from whatever was last asked of it
    return [_class(tokenizer), tokenizer.model_max_length, digest(rules)]
