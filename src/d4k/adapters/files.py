"""The files of low-rank adapters (LoRA): found, read, checked and written.

A file has diffusers' names: `transformer.`, the layer, `.lora_A.weight` or `.lora_B.weight`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from attrs import evolve, field, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from d4k.adapters.metadata import read_settings, scales
from d4k.errors import CheckpointError, ConfigError, OutputError, UnknownNameError
from d4k.files import atomic_file, is_file, is_folder, parse_json
from d4k.models import OFFLINE, RunFolder, Training, fetch_file, read_card

__all__ = ["ADAPTER_WEIGHTS", "Adapter", "Layout", "find_adapter", "read_adapter", "write_adapter"]

ADAPTER_WEIGHTS = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file of an adapter in a folder."""

Layout = Literal["diffusers", "comfyui"]
"""How an adapter is written: with its settings beside the tensors, or with an alpha for each layer among them."""

METADATA = "lora_adapter_metadata"
PREFIX = "transformer."
DOWN, UP, ALPHA = ".lora_A.weight", ".lora_B.weight", ".alpha"


@frozen(eq=False)
class Adapter:
    """The tensors and settings of one adapter.

    Args:
        source: where it was read from; empty if it was taken from a model.
        tensors: named by layer and matrix, such as `transformer_blocks.0.attn.to_q.lora_A.weight` of (rank, inputs)
            and `….lora_B.weight` of (outputs, rank).
        settings: of peft's `LoraConfig`: `r`, `lora_alpha`, `target_modules`, and what else is not its default;
            see `d4k.adapters.metadata`.
        sha256: of the file, in hexadecimal.
        base: the model it was trained on; empty where that is not recorded.
        training: what it was trained with, where that is recorded.
    """

    source: str
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    sha256: str = ""
    base: str = ""
    training: Training = field(factory=Training)

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each layer, by its name."""
        return {name.removesuffix(DOWN): len(t) for name, t in self.tensors.items() if name.endswith(DOWN)}

    @property
    def name(self) -> str:
        """A name after the file or folder: `first` for `runs/first`, `style` for `loras/style.safetensors`."""
        path = Path(self.source).absolute()
        kept = [part for part in path.parts if part not in (ADAPTER_WEIGHTS, RunFolder(path).adapter.name)]
        return re.sub(r"\W+", "_", kept[-1].removesuffix(".safetensors")) or "adapter"


def find_adapter(source: str | Path) -> Path:
    """The file of an adapter.

    Args:
        source: a safetensors file; a folder that holds `ADAPTER_WEIGHTS`, or that a run with an adapter left; or a Hub
            id such as owner/name or owner/name/file.safetensors.

    Raises:
        CheckpointError: there is none, it is pickled, or the Hub cannot be reached.
    """
    path = Path(source)
    if is_folder(path, CheckpointError):
        inside = [
            file
            for file in (path / ADAPTER_WEIGHTS, RunFolder(path).adapter / ADAPTER_WEIGHTS)
            if is_file(file, CheckpointError)
        ]
        if not inside:
            held = ", ".join(sorted(file.name for file in path.glob("*"))[:8]) or "nothing"
            raise CheckpointError(f"{path} holds no {ADAPTER_WEIGHTS}, only {held}; name the safetensors file itself")
        return inside[0]
    if is_file(path, CheckpointError):
        if path.suffix != ".safetensors":
            raise CheckpointError(
                f"adapter {path} is not a .safetensors file; d4k reads no pickled weights, which may run code: "
                "load it with diffusers where you trust it, and save it again as safetensors"
            )
        return path
    owner, _, rest = str(source).partition("/")
    name, _, file = rest.partition("/")
    if not (re.fullmatch(r"[\w-][\w.-]*", owner) and name) or str(source).endswith("/"):
        raise CheckpointError(
            f"there is no adapter {source}; "
            "give a .safetensors file, the folder of a run, or a Hub id such as owner/name"
        )
    found = fetch_file(f"{owner}/{name}", file or ADAPTER_WEIGHTS)
    if found is None:
        raise CheckpointError(f"there is no adapter {source} here, nor {file or ADAPTER_WEIGHTS} on the Hub. {OFFLINE}")
    return found


def read_adapter(source: str | Path) -> Adapter:
    """Read an adapter of a denoiser, in either `Layout`.

    Args:
        source: see `find_adapter`.

    Raises:
        CheckpointError: there is none, it is damaged or pickled, its names are of another layout, or its settings are
            not those of its tensors.
    """
    file = find_adapter(source)
    try:
        with safe_open(file, "pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            metadata = (opened.metadata() or {}).get(METADATA, "{}")
        with file.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot read adapter {file}: {error}; is it cut short? Get it again") from error
    stored = parse_json(metadata, f"the metadata of adapter {file}", CheckpointError)
    own, alphas = _split(file, tensors)
    _check_pairs(file, own)
    card = read_card(str(file.parent))
    adapter = Adapter(str(source), own, {}, sha256, card.base.name if card.base else "", card.training)
    settings = read_settings(stored, file, adapter.ranks) or _settings(adapter, alphas)
    return evolve(adapter, settings=settings)


def _split(file: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The matrices and the alphas of the denoiser, by names without the prefix."""
    own, alphas = {}, {}
    for name, tensor in tensors.items():
        short = name.removeprefix(PREFIX)
        if name.startswith("text_encoder"):
            continue
        if short == name or not (".lora_" in short or short.endswith(ALPHA)) or ".lora_down" in short:
            raise CheckpointError(
                f"adapter {file} names a tensor '{name}', where diffusers writes '{PREFIX}layer{DOWN}'; if diffusers "
                "reads it (load_lora_weights), load it there and save it with save_lora_weights"
            )
        if short.endswith(ALPHA):
            alphas[short.removesuffix(ALPHA)] = _alpha(file, name, tensor)
        else:
            _check_finite(file, name, tensor)
            own[short] = tensor
    ignored = sum(name.startswith("text_encoder") for name in tensors)
    if ignored:
        warnings.warn(f"adapter {file}: {ignored} tensors of text encoders are ignored", stacklevel=3)
    return own, alphas


def _alpha(file: Path, name: str, tensor: Tensor) -> float:
    if tensor.numel() != 1 or not math.isfinite(float(tensor)):
        raise CheckpointError(f"adapter {file} must hold one finite number as '{name}', got {tensor.tolist()}"[:400])
    return float(tensor)


def _check_finite(file: Path, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point() or not bool(tensor.float().isfinite().all()):
        raise CheckpointError(
            f"adapter {file} holds values in '{name}' that are not finite numbers (NaN or infinity, or none at all): "
            "its training failed, or the file is damaged; get it again"
        )


def _check_pairs(file: Path, tensors: Mapping[str, Tensor]) -> None:
    layers = {name.partition(".lora_")[0] for name in tensors}
    for layer in sorted(layers):
        down, up = tensors.get(layer + DOWN), tensors.get(layer + UP)
        if down is None or up is None or min(down.ndim, up.ndim) < 2 or down.shape[0] != up.shape[1]:
            raise CheckpointError(f"adapter {file} lacks a matching pair of matrices for '{layer}'; get it again")
    if not layers:
        raise CheckpointError(
            f"adapter {file} holds no tensors for the denoiser ('{PREFIX}…'): there is nothing to load"
        )


def _settings(adapter: Adapter, alphas: Mapping[str, float]) -> dict[str, Any]:
    """Settings of peft from the tensors alone; a layer without an alpha counts 1, by diffusers' convention."""
    from d4k.upstream import get_peft_kwargs

    ranks = adapter.ranks
    by_rank = {f"^{layer}{UP}": rank for layer, rank in ranks.items()}
    by_alpha = {f"^{layer}{ALPHA}": alphas.get(layer, float(rank)) for layer, rank in ranks.items()} if alphas else {}
    kept: dict[str, Any] = get_peft_kwargs(by_rank, by_alpha, dict(adapter.tensors))
    return kept


def write_adapter(adapter: Adapter, file: Path, *, layout: Layout = "diffusers") -> None:
    """Write an adapter as safetensors.

    Args:
        adapter: read, or taken from a model.
        file: ends in .safetensors.
        layout: `diffusers` keeps the settings as metadata, where diffusers and d4k read them; ComfyUI does not, and
            takes the rank for alpha. `comfyui` has the same names and an alpha for each layer, which ComfyUI reads.

    Raises:
        UnknownNameError: there is no such layout.
        ConfigError: the adapter has tensors that the layout has no names for.
        OutputError: the file has another ending, or cannot be written.

    Source of what ComfyUI reads: https://github.com/Comfy-Org/ComfyUI/issues/3701 (names of SD3),
    https://github.com/Nerogar/OneTrainer/pull/1563 (names of FLUX.1),
    https://github.com/huggingface/diffusers/issues/14088 (alpha).
    """
    if layout not in get_args(Layout):
        raise UnknownNameError("layout", layout, get_args(Layout))
    if file.suffix != ".safetensors":
        raise OutputError(f"cannot write {file}: the ending of an adapter must be .safetensors")
    metadata = {"format": "pt"}
    tensors = {PREFIX + name: tensor for name, tensor in adapter.tensors.items()}
    if layout == "comfyui":
        other = [name for name in adapter.tensors if not name.endswith((DOWN, UP))]
        if other:
            raise ConfigError(
                f"the layout 'comfyui' has no name for '{other[0]}' of {adapter.source}; merge it instead"
            )
        tensors |= {f"{PREFIX}{layer}{ALPHA}": torch.tensor(alpha) for layer, alpha in _alphas(adapter)}
    else:
        settings = {PREFIX + key: value for key, value in adapter.settings.items()}
        metadata[METADATA] = json.dumps(settings, sort_keys=True)
    content = _sorted_metadata(save(tensors, metadata))
    with atomic_file(file) as temporary:
        temporary.write_bytes(content)


def _sorted_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata in order of their names; safetensors' own order changes on every call."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _alphas(adapter: Adapter) -> Iterator[tuple[str, float]]:
    """Each layer with its alpha, an update counting alpha / rank."""
    stabilised = adapter.settings.get("use_rslora", False)
    for layer, (rank, alpha) in scales(adapter.settings, adapter.ranks).items():
        yield layer, float(alpha) * (rank**0.5 if stabilised else 1.0)
