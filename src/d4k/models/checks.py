"""Whether files of weights fit a model, before any of them is read.

What a model expects comes from its configuration on torch's meta device.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from d4k.errors import CheckpointError
from d4k.files import is_file
from d4k.models.configs import read_config
from d4k.models.headers import (
    AGAIN,
    PART_WEIGHTS,
    Shapes,
    _few,
    _variants,
    model_parts,
    read_shapes,
    used_variant,
    weight_files,
)
from d4k.models.tokenizers import check_tokenizers
from d4k.upstream import ignored_on_load, rename_on_load

__all__ = ["check_model", "check_names", "check_part", "check_single_file"]


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
    scheduler = folder / "scheduler" / "scheduler_config.json"
    if is_file(scheduler, CheckpointError):
        _read(scheduler)
    check_tokenizers(folder)
    for name, (library, cls) in parts.items():
        if library == "diffusers":
            check_part(folder / name, cls, variant)
        else:
            _check_text_encoder(folder / name, cls, variant)


def _config(folder: Path) -> dict[str, Any]:
    return _read(folder / "config.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_config(path)
    except CheckpointError as error:
        raise CheckpointError(f"{error}. {AGAIN}") from error


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
    rename_on_load(model, named)
    ignored = ignored_on_load(cls)
    kept = {name: tensor for name, tensor in named.items() if not any(re.search(pattern, name) for pattern in ignored)}
    check_names(str(folder), _shapes(kept), _shapes(model.state_dict()))


def _present(folder: Path, variant: str | None) -> tuple[Path, ...]:
    files = weight_files(folder, variant)
    if not files:
        variants = _variants(folder)
        hint = f"It has the variants {', '.join(variants)}: name one as the variant" if variants else AGAIN
        raise CheckpointError(f"{folder} has no weights (such as {PART_WEIGHTS}). {hint}")
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
    config = _config(folder)
    if "quantization_config" in config:
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
    from d4k.upstream import SINGLE_FILE_LOADABLE_CLASSES

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
