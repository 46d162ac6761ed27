"""Weights before they are weights: which files hold them, what their headers say, and whether a model can take them.

Nothing here allocates a tensor of a model: names and shapes come from the headers of safetensors files, and what a
model expects comes from its configuration on torch's meta device.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from d4k.errors import CheckpointError

__all__ = [
    "SAFE",
    "WEIGHTS",
    "check_model",
    "check_names",
    "check_part",
    "check_single_file",
    "count",
    "model_parts",
    "part_bytes",
    "read_pickle",
    "read_shapes",
    "used_variant",
    "weight_files",
]

WEIGHTS = "diffusion_pytorch_model.safetensors"
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
            if index.is_file():
                return _shards(index)
            whole = folder / f"{stem}{mark}.{ending}"
            if whole.is_file():
                return (whole,)
    return ()


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is not an index of weights: {error}. {AGAIN}") from error
    absent = [name for name in names if not (index.parent / name).is_file()]
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
        size = file.stat().st_size if file.is_file() else 0
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


def check_names(label: str, found: Shapes, expected: Shapes) -> None:
    """Compare the tensors of a file with those of a model.

    Raises:
        CheckpointError: names are missing or unexpected, or shapes differ; it counts them and names the first.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    unfit = [
        f"{name} ({_size(found[name])} instead of {_size(expected[name])})"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    _refuse(label, {"missing": missing, "unexpected": unexpected, "of another shape": unfit})


def _refuse(label: str, faults: Mapping[str, list[str]]) -> None:
    said = [f"{len(names)} {fault}: {_few(names)}" for fault, names in faults.items() if names]
    if said:
        raise CheckpointError(
            f"the weights in {label} do not fit the model's configuration: tensors {'; '.join(said)}. "
            "Are they of this model, and complete?"
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def check_model(folder: Path, variant: str | None = None, skip: Iterable[str] = ()) -> None:
    """Check every part of a model in the diffusers layout against its configuration, before any of it is read.

    Args:
        folder: holds `model_index.json`.
        variant: of the weight files.
        skip: parts that come from elsewhere.

    Raises:
        CheckpointError: files or tensors are missing, unexpected or of another shape, or a variant is not there.
    """
    parts = {name: cls for name, cls in model_parts(folder).items() if name not in skip}
    if variant and not any(used_variant(folder / name, variant) for name in parts):
        raise CheckpointError(
            f"{folder} has no weights of the variant '{variant}'; it has {', '.join(_variants(folder)) or 'none'}"
        )
    for name, (library, cls) in parts.items():
        if library == "diffusers":
            check_part(folder / name, cls, variant)
        else:
            _check_text_encoder(folder / name, cls, variant)


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
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'model_index.json'} is missing or not JSON. {AGAIN}") from error
    found = {}
    for name, entry in index.items():
        if isinstance(entry, list) and entry[0] in ("diffusers", "transformers"):
            cls = getattr(import_module(entry[0]), entry[1], None)
            if isinstance(cls, type) and issubclass(cls, torch.nn.Module):
                found[name] = (entry[0], cls)
    return found


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / 'config.json'} is missing or not JSON. {AGAIN}") from error
    return config if isinstance(config, dict) else {}


def _variants(folder: Path) -> list[str]:
    files = folder.rglob("*.safetensors")
    words = (file.name.removesuffix(".safetensors").split("-0")[0].partition(".")[2] for file in files)
    return sorted({word for word in words if word})


def check_part(folder: Path, cls: Any, variant: str | None = None) -> None:
    """Check a diffusers model, made from its `config.json` on the meta device, against its weights.

    Args:
        folder: of the part.
        cls: what it should be.
        variant: of the weight files.

    Raises:
        CheckpointError: it is of another class, or its weights are absent or do not fit.
    """
    config = _config(folder)
    if config.get("_class_name", cls.__name__) != cls.__name__:
        raise CheckpointError(f"{folder} holds a {config['_class_name']}, where the model has a {cls.__name__}")
    found: dict[str, tuple[int, ...]] = {}
    for file in _present(folder, variant):
        found |= read_shapes(file)
    if "quantization_config" in config:
        return  # its tensors are those of the quantiser, which checks them itself
    model = _empty(cls, folder)
    named = {name: torch.empty(shape, device="meta") for name, shape in found.items()}
    model._fix_state_dict_keys_on_load(named)  # diffusers reads some old names
    ignored = cls._keys_to_ignore_on_load_unexpected or ()
    kept = {name: tensor for name, tensor in named.items() if not any(re.search(pattern, name) for pattern in ignored)}
    check_names(str(folder), _shapes(kept), _shapes(model.state_dict()))


def _present(folder: Path, variant: str | None) -> tuple[Path, ...]:
    files = weight_files(folder, variant)
    if not files:
        variants = _variants(folder)
        hint = f"It has the variants {', '.join(variants)}: name one as the variant" if variants else AGAIN
        raise CheckpointError(f"{folder} has no weights (such as {WEIGHTS}). {hint}")
    return files


def _empty(cls: Any, folder: Path) -> Any:
    config = _config(folder)
    with torch.device("meta"):
        return cls.from_config(config)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_text_encoder(folder: Path, cls: Any, variant: str | None) -> None:
    """As `check_part`, by the loader of transformers, which renames tensors between versions; on the meta device."""
    from transformers.utils import logging

    for file in _present(folder, variant):
        read_shapes(file)  # a damaged one is named
    if "quantization_config" in _config(folder):
        return
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        _, report = cls.from_pretrained(
            folder,
            variant=used_variant(folder, variant),
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    finally:
        logging.set_verbosity(verbosity)
    unfit = [entry[0] if isinstance(entry, tuple) else entry for entry in report["mismatched_keys"]]
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    _refuse(str(folder), {"missing": missing, "unexpected": unexpected, "of another shape": sorted(unfit)})


def check_single_file(file: Path, cls: Any, config: Path) -> bool:
    """Check a single file of a denoiser, in diffusers' names or in those of the original release.

    Args:
        file: safetensors, or a pickle of tensors.
        cls: diffusers model class that has `from_single_file`.
        config: folder with the `config.json` of the model.

    Returns:
        Whether its names are those of diffusers.

    Raises:
        CheckpointError: the file does not fit.
    """
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    expected = _shapes(_empty(cls, config).state_dict())
    found = read_shapes(file)
    mapping = SINGLE_FILE_LOADABLE_CLASSES.get(cls.__name__)
    original = mapping is not None and len(found.keys() & expected.keys()) < len(expected) / 2
    if original:
        named = {name: torch.empty(shape, device="meta") for name, shape in found.items()}
        try:
            found = _shapes(mapping["checkpoint_mapping_fn"](checkpoint=named, config=_config(config)))
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{file} holds neither the tensors of {cls.__name__} nor those of its original release "
                f"(the conversion stopped at {error}). It begins with: {_few(sorted(found))}"
            ) from error
    check_names(str(file), found, expected)
    return not original


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
