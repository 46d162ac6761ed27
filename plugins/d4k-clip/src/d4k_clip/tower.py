"""A CLIP model through open_clip: built from its configuration, loaded once, and asked for embeddings.

pictures (3, H, W) uint8 ─ prepare, in threads ─► (B, 3, 224, 224) ─ image tower ─► (B, E), of length 1
tokens (K, 77) ───────────────────────────────────────────────────── text tower ──► (K, E), of length 1
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias
from weakref import WeakValueDictionary

import torch
from accelerate import init_empty_weights
from attrs import field, frozen
from open_clip import CLIP, get_model_config, image_transform, list_models
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from d4k import CheckpointError, ConfigError, DataError
from d4k.images import to_picture
from d4k_clip.layouts import as_open_clip
from d4k_clip.weights import Published, file_digest, read_weights

__all__ = ["Architecture", "Resize", "Tower", "find_architecture", "load_tower"]

Resize: TypeAlias = Literal["shortest", "longest"]
"""Whether the shorter side becomes 224 and the rest is cut off, or the longer and the rest is black."""

BATCH = 16
"""Pictures, or texts, that a network sees at once."""


@frozen
class Architecture:
    """The sizes of a CLIP model.

    Args:
        name: of open_clip, or the configuration as JSON where it is none of its.
        config: what `open_clip.CLIP` is made of.
    """

    name: str
    config: Mapping[str, Any] = field(eq=False)

    @property
    def title(self) -> str:
        """What messages call it."""
        return "of that configuration" if self.name.startswith("{") else self.name

    @property
    def key(self) -> str:
        """What tells it from others: the configuration as JSON."""
        return json.dumps(self.config, sort_keys=True)

    @property
    def size(self) -> int:
        """Pixels a side that the image tower sees."""
        return int(self.config["vision_cfg"].get("image_size", 224))

    @property
    def context(self) -> int:
        """Tokens that the text tower reads, with begin and end."""
        return int(self.config["text_cfg"].get("context_length", 77))

    def preprocessing(self, resize: Resize) -> dict[str, Any]:
        """How a picture becomes what the image tower sees, in plain values."""
        mean, std = list(OPENAI_DATASET_MEAN), list(OPENAI_DATASET_STD)
        crop = {"shortest": "centre crop", "longest": "black padding"}[resize]
        return {"size": self.size, "resize": resize, "then": crop, "filter": "bicubic", "mean": mean, "std": std}


def find_architecture(model: str) -> Architecture:
    """The architecture of a name of open_clip, of a JSON file in its format, or of what such a file holds.

    Raises:
        ConfigError: there is no such name or file, or it is no plain CLIP: of such, d4k has neither tokenizer nor
            preprocessing.

    >>> find_architecture("ViT-B-16-quickgelu").context
    77
    """
    config: Any = None if model.startswith("{") else get_model_config(model)
    named = config is not None
    if model.startswith("{") or model.endswith(".json"):
        config = _own_config(model)
    if config is None:
        known = ", ".join(name for name in list_models() if name.startswith("ViT-") and "SigLIP" not in name)
        raise ConfigError(f"unknown CLIP model '{model}'; it is a JSON file, or a name of open_clip, such as: {known}")
    if not _is_plain(config):
        raise ConfigError(f"'{model}' is no plain CLIP model, such as ViT-B-16-quickgelu: its texts or pictures differ")
    return Architecture(model if named else json.dumps(config, sort_keys=True), config)


def _own_config(model: str) -> Any:
    try:
        text = model if model.startswith("{") else Path(model).expanduser().read_text(encoding="utf-8")
        config = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the configuration of a CLIP model from {model}: {error}") from error
    return config.get("model_cfg", config) if isinstance(config, dict) else config


def _is_plain(config: Any) -> bool:
    """Whether both towers are open_clip's own, so that its tokenizer and CLIP's preprocessing belong to them."""
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        return False
    return not (
        config.get("custom_text")
        or "multimodal_cfg" in config
        or "timm_model_name" in config["vision_cfg"]
        or {"hf_model_name", "hf_tokenizer_name"} & set(config["text_cfg"])
    )


class Tower:
    """A CLIP model on a device, with its preprocessing. Get one from `load_tower`."""

    def __init__(self, architecture: Architecture, model: Any, device: torch.device) -> None:
        self.architecture, self._model, self._device = architecture, model, device

    @property
    def logit_scale(self) -> float:
        """What cosines are multiplied with in training: about 100."""
        return float(self._model.logit_scale.detach().double().exp())

    def embed_images(self, pictures: Sequence[Tensor], resize: Resize = "shortest") -> Tensor:
        """Embeddings of B pictures of any size, uint8 (3, H, W): (B, E) float32 of length 1, on the CPU.

        Raises:
            DataError: a picture is something else.
        """
        for picture in pictures:
            if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
                raise DataError(f"pictures must be uint8 (3, H, W), got {picture.dtype} {tuple(picture.shape)}")
        size = self.architecture.size
        transform = image_transform(size, is_train=False, resize_mode=resize, interpolation="bicubic")
        with ThreadPoolExecutor(max(1, min(torch.get_num_threads(), len(pictures)))) as pool:
            prepared = list(pool.map(lambda picture: transform(to_picture(picture)), pictures))
        return self._embed(self._model.encode_image, prepared)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Embeddings of K texts, (K, context): (K, E) float32 of length 1, on the CPU."""
        return self._embed(self._model.encode_text, list(tokens))

    @torch.inference_mode()
    def _embed(self, encode: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        parts = [torch.stack(list(inputs[at : at + BATCH])) for at in range(0, len(inputs), BATCH)]
        if not parts:
            return torch.zeros(0, int(self.architecture.config["embed_dim"]))
        return torch.cat([encode(part.to(self._device), normalize=True).float().cpu() for part in parts])


_towers: WeakValueDictionary[tuple[str, str, str], Tower] = WeakValueDictionary()
_lock = Lock()


def load_tower(
    architecture: Architecture, path: Path, device: torch.device, published: Published | None = None
) -> Tower:
    """A CLIP model; the one that is there already where a metric holds the same weights on the same device.

    Args:
        architecture: that the weights are of.
        path: file of weights, as open_clip, OpenAI or transformers lay them out.
        device: that computes, in float32.
        published: named in the message about a file that cannot be read.

    Raises:
        CheckpointError: the file cannot be read, or does not fit the architecture.
    """
    key = (architecture.key, file_digest(path), str(device))
    with _lock:
        tower = _towers.get(key)
        if tower is None:
            state = as_open_clip(read_weights(path, published))
            tower = Tower(architecture, _build(architecture, state, path).to(device), device)
            _towers[key] = tower
    return tower


def _build(architecture: Architecture, state: dict[str, Tensor], path: Path) -> Any:
    """The model with these weights in float32. No random weights are made, and no random number is used up."""
    with torch.random.fork_rng(devices=[]), init_empty_weights():
        model = CLIP(**json.loads(architecture.key))
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(f"{path} does not fit the model {architecture.title}: {reason}") from error
    for names, what in ((missing, "misses"), (unexpected, "holds what is unknown there:")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{path} does not fit the model {architecture.title}: it {what} {names[0]}{more}")
    return model.float().eval().requires_grad_(False)
