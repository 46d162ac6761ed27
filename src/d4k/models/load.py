"""Loading and saving a diffusers pipeline, with errors that name what is missing or does not fit."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from safetensors import SafetensorError

from d4k.errors import CheckpointError, D4KError, OutputError, first_line
from d4k.models.checks import check_model, check_part, check_single_file
from d4k.models.headers import PART_WEIGHTS, SAFE, model_parts, read_pickle, used_variant
from d4k.models.hub import OFFLINE, fetch_denoiser, fetch_model
from d4k.models.placement import AUTOENCODER, DENOISER, check_placement, offload_part, place, quantization
from d4k.models.shapes import config_reader, empty_pipeline
from d4k.protocols import Placement

__all__ = ["check_finite", "disk_errors", "load_pipeline", "read_again", "save_pipeline"]

PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def load_pipeline(pipeline_class: Any, source: str, placement: Placement) -> Any:
    """Load a diffusers pipeline from a folder or the Hub; safetensors only.

    Args:
        pipeline_class: with a diffusers `from_pretrained`.
        source: folder or Hub id.
        placement: how the weights are read, and where they are held.

    Raises:
        CheckpointError: a part is missing or corrupt, or does not fit its configuration; the message names it.
        ConfigError: the placement cannot be had on this machine.
    """
    try:
        if placement.device.type == "meta":
            return empty_pipeline(pipeline_class, config_reader(source, placement), placement.dtype)
        check_placement(placement)
        with _quiet():
            return _place(_read_pipeline(pipeline_class, source, placement), placement)
    except CheckpointError as error:
        raise CheckpointError(f"cannot load '{source}' as {pipeline_class.__name__}: {error}") from error
    except D4KError:
        raise
    except Exception as error:
        # diffusers, transformers and safetensors raise a dozen unrelated types for a damaged checkpoint
        advice = "Is a file missing or cut short? Download it again." if Path(source).is_dir() else OFFLINE
        raise CheckpointError(
            f"cannot load '{source}' as {pipeline_class.__name__}: {type(error).__name__}: {first_line(error)} {advice}"
        ) from error


def _place(pipeline: Any, placement: Placement) -> Any:
    """Put a pipeline where it belongs, once it is sure that it can compute: values are looked at where that is fast."""
    _check_scaling(pipeline)
    if placement.offload in ("model", "group"):  # which leave weights on the CPU
        check_finite(pipeline.components)
    placed = place(pipeline, placement)
    if placement.offload is None:
        check_finite(placed.components)
    return placed


def _check_scaling(pipeline: Any) -> None:
    """Refuse latents times nothing or NaN: they would decode to one colour without an error."""
    config = getattr(getattr(pipeline, AUTOENCODER, None), "config", {})
    for name, lowest in (("scaling_factor", 0.0), ("shift_factor", -math.inf)):
        value = config.get(name, 1.0)
        if value is None and name == "shift_factor":
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not lowest < value < math.inf:
            least = " above 0" if lowest == 0 else ""
            raise CheckpointError(f"the {name} of its autoencoder must be a finite number{least}, got {value!r}")


def check_finite(parts: Mapping[str, Any], error: type[D4KError] = CheckpointError) -> None:
    """Refuse weights that are NaN or infinite: all that is computed with them would be, too.

    One pass over the weights, as fast as memory is read. Weights that are held in fewer bits are passed over.

    Args:
        parts: name -> part of a pipeline; what is no module is passed over.
        error: what is raised; the message names part and tensor.
    """
    for name, part in parts.items():
        for tensor_name, tensor in part.state_dict().items() if isinstance(part, torch.nn.Module) else ():
            plain = type(tensor) is torch.Tensor and tensor.dtype in PLAIN and tensor.device.type != "meta"
            if plain and tensor.numel() and not all(end.isfinite() for end in tensor.aminmax()):
                raise error(
                    f"'{tensor_name}' of its {name} holds values that are not finite numbers (NaN or infinity). "
                    "Is the file damaged, or is the dtype too narrow? Get it again, or load another dtype"
                )


def _read_pipeline(pipeline_class: Any, source: str, placement: Placement) -> Any:
    denoiser = DENOISER
    replaced = denoiser if placement.transformer else ""
    folder = Path(source)
    if not folder.is_dir():
        folder = fetch_model(source, placement.revision, placement.variant, without=replaced)
    check_model(folder, placement.variant, skip=(replaced,))
    known = model_parts(folder)
    parts = {}
    if placement.transformer:
        parts[denoiser] = _read_denoiser(known[denoiser][1], folder / denoiser, placement)
    elif placement.quantize:
        parts[denoiser] = _read_part(known[denoiser][1], folder / denoiser, placement, quantization(placement))
    if placement.offload == "disk":  # part by part, so that memory holds the largest, not all
        for name, (_, cls) in known.items():
            parts[name] = parts.get(name) or _read_part(cls, folder / name, placement)
            check_finite({name: parts[name]})
            offload_part(parts[name], name, placement)
    return pipeline_class.from_pretrained(folder, dtype=placement.dtype, variant=placement.variant, **parts)


def _read_part(cls: Any, folder: Path, placement: Placement, config: Any = None) -> Any:
    variant = used_variant(folder, placement.variant)
    settings = {} if config is None else {"quantization_config": config}
    return cls.from_pretrained(folder, dtype=placement.dtype, variant=variant, **settings)


def read_again(part: torch.nn.Module, folder: Path, variant: str | None = None) -> torch.nn.Module:
    """Another instance of a part of a pipeline, read from where it came from, in the same dtype, on the CPU.

    Args:
        part: of diffusers or transformers; its weights are not looked at.
        folder: of the part.
        variant: as of `Placement`.

    Raises:
        CheckpointError: it cannot be read any more.
    """
    try:
        with _quiet():
            used = used_variant(folder, variant)
            fresh: torch.nn.Module = type(part).from_pretrained(folder, dtype=part.dtype, variant=used)  # type: ignore[attr-defined]
            return fresh
    except Exception as error:  # of diffusers, transformers and safetensors, as in load_pipeline
        raise CheckpointError(f"cannot read {folder} again: {type(error).__name__}: {first_line(error)}") from error


def _read_denoiser(cls: Any, config: Path, placement: Placement) -> Any:
    """The denoiser that replaces the model's own: a file with the model's configuration, or a folder with its own."""
    path = fetch_denoiser(str(placement.transformer))
    quantized = quantization(placement)
    if path.is_dir():
        check_part(path, cls, placement.variant)
        return _read_part(cls, path, placement, quantized)
    as_it_is = check_single_file(path, cls, config) and path.suffix in SAFE
    if quantized is None:
        return _read_single_file(cls, path, config, placement)
    # diffusers quantises what from_pretrained reads, and not what from_single_file does
    with tempfile.TemporaryDirectory(prefix="d4k-transformer-") as name:
        folder = Path(name)
        if as_it_is:
            shutil.copyfile(config / "config.json", folder / "config.json")
            (folder / PART_WEIGHTS).symlink_to(path.resolve())
        else:
            _read_single_file(cls, path, config, placement).save_pretrained(folder)
        return _read_part(cls, folder, evolve(placement, variant=None), quantized)


def _read_single_file(cls: Any, path: Path, config: Path, placement: Placement) -> Any:
    content = str(path) if path.suffix in SAFE else read_pickle(path)
    return cls.from_single_file(content, config=str(config), dtype=placement.dtype, local_files_only=True)


def save_pipeline(pipeline: Any, folder: Path) -> None:
    """Write a diffusers pipeline into a folder, as safetensors.

    Raises:
        OutputError: its weights are not finite numbers; nothing is written.
    """
    check_finite(pipeline.components, OutputError)
    with _quiet(), disk_errors():
        pipeline.save_pretrained(folder, safe_serialization=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars that diffusers and transformers show for every part of a model, each over the last."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging in (diffusers_logging, transformers_logging):
            logging.enable_progress_bar()


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what safetensors and torch raise on a full disk into OSError."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        raise OSError(f"is the disk full? {first_line(error).rstrip('.')}") from error
