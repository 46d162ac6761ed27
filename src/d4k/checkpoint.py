"""Models and runs on disk: which backbone a folder needs, loading it with errors that help, and resumable state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from d4k.errors import CheckpointError, UnknownNameError
from d4k.files import atomic_folder, write_json
from d4k.plugins import registry
from d4k.protocols import Placement
from d4k.shapes import empty_pipeline

__all__ = [
    "CARD",
    "Source",
    "find_model",
    "latest_state",
    "load_pipeline",
    "load_state",
    "save_pipeline",
    "save_state",
    "write_card",
]

CARD = "d4k.json"
"""Beside a model's `model_index.json`: the backbone's name and its options."""

FORMAT = 1
OFFLINE = "Offline? Download it elsewhere, and give the folder's path instead."


@frozen
class Source:
    """A model that was found: where it is, which backbone loads it, and with which options.

    Args:
        backbone: registered name.
        location: local folder or Hub id.
        options: of the backbone, from the model's `d4k.json`.
    """

    backbone: str
    location: str
    options: Mapping[str, Any]


def find_model(model: str) -> Source:
    """Find a model by registered name, local folder (also of a finished run) or Hub id.

    Raises:
        UnknownNameError: it is none of these.
        CheckpointError: its `model_index.json` is missing, unreadable or of a pipeline that no plugin loads.
    """
    names = registry()
    if ("checkpoint", model) in names.entries:
        entry = names.get("checkpoint", model)
        return Source(entry.backbone, entry.target, _read_card(entry.target).get("options", {}))
    folder = Path(model)
    if folder.is_dir():
        model = str(folder / "model") if (folder / "model" / "model_index.json").is_file() else model
    elif "/" not in model or model.startswith((".", "/", "~")) or model.count("/") > 1:
        hint = "Or give a folder in the diffusers layout, or a Hub id such as owner/name."
        try:
            names.get("checkpoint", model)  # raises the reason if the plugin of that name did not load
        except UnknownNameError:
            raise UnknownNameError("model", model, names.names("checkpoint"), hint) from None
    card = _read_card(model)
    name = card.get("backbone") or _detect(model)
    return Source(str(name), model, card.get("options", {}))


def _detect(model: str) -> str:
    index = _fetch_json(model, "model_index.json")
    if index is None:
        if Path(model).is_dir():
            raise CheckpointError(f"{model} has no model_index.json; d4k reads models in the diffusers layout")
        # offline, huggingface_hub reports a file that is not in its cache as one that does not exist
        raise CheckpointError(f"{model} has no model_index.json, or the Hub cannot be reached. {OFFLINE}")
    pipeline = index.get("_class_name")
    names = registry()
    readers = {
        kind_name[1]: e.pipelines
        for kind_name, e_list in names.entries.items()
        if kind_name[0] == "backbone"
        for e in e_list
    }
    for name, pipelines in readers.items():
        if pipeline in pipelines:
            return name
    known = ", ".join(sorted(p for pipelines in readers.values() for p in pipelines)) or "none"
    raise CheckpointError(f"{model} is a {pipeline}, which no installed plugin loads. Known: {known}. Try: d4k plugins")


def _read_card(model: str) -> dict[str, Any]:
    card = _fetch_json(model, CARD) or {}
    if card.get("format", FORMAT) != FORMAT:
        raise CheckpointError(f"{model}/{CARD} has format {card['format']}; this d4k reads format {FORMAT}: update d4k")
    if not isinstance(card.get("options", {}), dict):
        raise CheckpointError(f"{model}/{CARD} must hold a table of options, got {card['options']!r}")
    return card


def _fetch_json(model: str, name: str) -> dict[str, Any] | None:
    folder = Path(model)
    if folder.is_dir():
        path = folder / name
        if not path.is_file():
            return None
    else:
        try:
            path = Path(hf_hub_download(model, name))
        except EntryNotFoundError:
            return None
        except (OSError, HFValidationError, ValueError) as error:
            raise CheckpointError(
                f"cannot get {name} of '{model}' from the Hub: {_first_line(error)} {OFFLINE}"
            ) from error
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}")
    return data


def load_pipeline(pipeline_class: Any, source: str, placement: Placement) -> Any:
    """Load a diffusers pipeline from a folder or the Hub; safetensors only.

    Args:
        pipeline_class: with a diffusers `from_pretrained`.
        source: folder or Hub id.
        placement: how the weights are read, and where they are held.

    Raises:
        CheckpointError: a part is missing or corrupt; the message names it.
    """
    if placement.device.type == "meta":
        return empty_pipeline(pipeline_class, partial(_fetch_json, source), placement.dtype)
    try:
        with _quiet():
            pipeline = pipeline_class.from_pretrained(source, dtype=placement.dtype, use_safetensors=True)
            return pipeline.to(placement.device)
    except Exception as error:
        # diffusers, transformers and safetensors raise a dozen unrelated types for a damaged checkpoint
        advice = "Is a file missing or cut short? Download it again." if Path(source).is_dir() else OFFLINE
        raise CheckpointError(
            f"cannot load '{source}' as {pipeline_class.__name__}: "
            f"{type(error).__name__}: {_first_line(error)} {advice}"
        ) from error


def save_pipeline(pipeline: Any, folder: Path) -> None:
    """Write a diffusers pipeline into a folder, as safetensors."""
    with _quiet(), _disk_errors():
        pipeline.save_pretrained(folder, safe_serialization=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars that diffusers and transformers draw for every part of a model, each over the last."""
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
def _disk_errors() -> Iterator[None]:
    """Turn what safetensors and torch raise on a full disk into OSError."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        raise OSError(f"is the disk full? {_first_line(error).rstrip('.')}") from error


def write_card(folder: Path, backbone: str, options: Mapping[str, Any]) -> None:
    """Write `d4k.json`, so that the model is loaded again with the same backbone and options."""
    write_json(folder / CARD, {"format": FORMAT, "backbone": backbone, "options": dict(options)})


def save_state(folder: Path, step: int, module: torch.nn.Module, optimizer: Any, schedule: Any) -> Path:
    """Write all that a run needs to go on, whole or not at all.

    Args:
        folder: of the run's checkpoints.
        step: optimizer steps done.
        module: unwrapped.
        optimizer: torch optimizer.
        schedule: torch learning-rate schedule.

    Returns:
        `folder/step-00000100`.

    Raises:
        OutputError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    with atomic_folder(target) as temporary:
        weights = {name: tensor.detach().contiguous() for name, tensor in module.state_dict().items()}
        rest = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        with _disk_errors():
            save_file(weights, temporary / "trainable.safetensors")
            torch.save(rest, temporary / "optimizer.pt")
        write_json(temporary / "state.json", {"format": FORMAT, "step": step})
    return target


def latest_state(folder: Path) -> Path | None:
    """The newest checkpoint that `save_state` wrote in `folder`, or None."""
    found = sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())
    return found[-1] if found else None


def load_state(folder: Path, module: torch.nn.Module, optimizer: Any, schedule: Any) -> int:
    """Put a run back to where `save_state` left it.

    Returns:
        Optimizer steps done.

    Raises:
        CheckpointError: a file is missing or damaged, or belongs to another model.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        module.load_state_dict(load_file(folder / "trainable.safetensors"))
        rest = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        optimizer.load_state_dict(rest["optimizer"])
        schedule.load_state_dict(rest["schedule"])
        return int(state["step"])
    except Exception as error:
        # a damaged file shows as any of a dozen types, depending on where it was cut
        raise CheckpointError(
            f"cannot resume from {folder}: {type(error).__name__}: {_first_line(error)} "
            "Delete that folder to resume from the one before."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else ""
