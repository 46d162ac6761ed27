"""Weights before they are weights: which files hold them, and what their headers say.

No tensor of a model is allocated here.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from d4k.errors import CheckpointError
from d4k.files import is_file, read_json
from d4k.models.configs import read_config

__all__ = [
    "AGAIN",
    "NAMES",
    "PART_WEIGHTS",
    "SAFE",
    "Shapes",
    "count",
    "model_parts",
    "part_bytes",
    "read_pickle",
    "read_shapes",
    "used_variant",
    "weight_files",
]

PART_WEIGHTS = "diffusion_pytorch_model.safetensors"
"""What diffusers calls the weights of a part."""


SAFE = (".safetensors", ".sft")
"""Endings of files that hold tensors and nothing that runs."""


Shapes = Mapping[str, tuple[int, ...]]


NAMES = (
    ("diffusion_pytorch_model", "safetensors"),
    ("model", "safetensors"),
    ("diffusion_pytorch_model", "bin"),
    ("pytorch_model", "bin"),
)


AGAIN = "Was the download interrupted? Download it again: what is there already is kept."


def weight_files(folder: Path, variant: str | None = None) -> tuple[Path, ...]:
    """The files that hold the weights of one part of a model, safetensors before anything pickled.

    Args:
        folder: of the part, such as `model/transformer`.
        variant: such as "fp16"; files without it are taken where there are none with it, as diffusers does.

    Returns:
        One file, or the shards of an index; empty where there is none.

    Raises:
        CheckpointError: the index is unreadable, or some of its shards are missing; the message names them.
    """
    for wanted in dict.fromkeys((variant, None)):
        mark = "" if wanted is None else f".{wanted}"
        for stem, ending in NAMES:
            index = folder / f"{stem}.{ending}.index{mark}.json"
            if is_file(index, CheckpointError):
                return _shards(index)
            whole = folder / f"{stem}{mark}.{ending}"
            if is_file(whole, CheckpointError):
                return (whole,)
    return ()


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(read_json(index, CheckpointError)["weight_map"].values()))
        absent = [name for name in names if not is_file(index.parent / name, CheckpointError)]
    except (KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of weights: {error}. {AGAIN}") from error
    if absent:
        raise CheckpointError(
            f"{index.parent} lacks {len(absent)} of the {len(names)} files that {index.name} names: "
            f"{_few(absent)}. {AGAIN}"
        )
    return tuple(index.parent / name for name in names)


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file of weights; of safetensors only the header is read.

    Raises:
        CheckpointError: the file is cut short or damaged, or holds pickled objects other than tensors.
    """
    if file.suffix not in SAFE:
        return {name: tuple(tensor.shape) for name, tensor in read_pickle(file, device="meta").items()}
    with _header(file) as header:
        return {name: tuple(header.get_slice(name).get_shape()) for name in header.keys()}  # noqa: SIM118


@contextmanager
def _header(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as header:
            yield header
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if is_file(file, CheckpointError) else 0
        raise CheckpointError(
            f"{file} is not a whole safetensors file ({size} bytes: {str(error).splitlines()[0]}). {AGAIN}"
        ) from error


def read_pickle(file: Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """The tensors of a `.bin`, `.pt` or `.ckpt` file, read without running what it holds.

    Args:
        file: saved by `torch.save`: tensors by name, or such a table under `state_dict`.
        device: "meta" reads no values.

    Raises:
        CheckpointError: it holds anything but tensors and plain data, or cannot be read.
    """
    try:
        data = torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds pickled objects other than tensors, which could run code: refused. "
            "Get the model as safetensors, or convert the file where you trust it"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0] or "it is cut short"
        raise CheckpointError(f"{file} cannot be read: {reason}. {AGAIN}") from error
    data = data.get("state_dict", data) if isinstance(data, dict) else {}
    return {name: tensor for name, tensor in data.items() if isinstance(tensor, torch.Tensor)}


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def used_variant(folder: Path, variant: str | None) -> str | None:
    """The variant, if a part has weights of it; None where diffusers takes those without one."""
    return variant if variant and any(f".{variant}" in file.name for file in weight_files(folder, variant)) else None


def model_parts(folder: Path) -> dict[str, tuple[str, Any]]:
    """Name -> library and class, of the parts of a model that have weights and are of diffusers or transformers.

    Args:
        folder: holds `model_index.json`.

    Raises:
        CheckpointError: it does not.
    """
    path = folder / "model_index.json"
    try:
        index = read_config(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {AGAIN}") from error
    found = {}
    for name, entry in index.items():
        match entry:
            case ["diffusers" | "transformers" as library, str(named)]:
                cls = getattr(import_module(library), named, None)
                if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
                    found[name] = (library, cls)
    return found


def _variants(folder: Path) -> list[str]:
    files = folder.rglob("*.safetensors")
    words = (file.name.removesuffix(".safetensors").split("-0")[0].partition(".")[2] for file in files)
    return sorted({word for word in words if word})


def part_bytes(folder: Path, bytes_each: int, variant: str | None = None) -> dict[str, int]:
    """Size of every part of a model in memory, from headers alone.

    Args:
        folder: holds `model_index.json`.
        bytes_each: bytes of one number.
        variant: of the weight files.

    Returns:
        Part -> bytes; 0 where its weights are not there.
    """
    return {name: bytes_each * count(weight_files(folder / name, variant)) for name in model_parts(folder)}


def count(files: Iterable[Path]) -> int:
    """How many numbers files of weights hold, from their headers."""
    return sum(math.prod(shape) for file in files for shape in read_shapes(file).values())
