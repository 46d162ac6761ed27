"""Models and runs on disk: which backbone a folder needs, loading it with errors that help, and resumable state."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, field, frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from d4k import hub, memory, weights
from d4k.config import read_toml
from d4k.errors import CheckpointError, ConfigError, D4KError, UnknownNameError
from d4k.files import atomic_folder, write_json
from d4k.plugins import registry
from d4k.protocols import Placement
from d4k.registry import Entry
from d4k.shapes import empty_pipeline

__all__ = [
    "CARD",
    "LOADED_WITH",
    "Source",
    "find_model",
    "latest_state",
    "load_pipeline",
    "load_state",
    "read_card",
    "save_pipeline",
    "save_state",
    "write_card",
]

CARD = "d4k.json"
"""Beside a model's `model_index.json`: the backbone's name, its options, and what the model was trained with."""

LOADED_WITH = ("revision", "variant", "transformer")
"""What beside its name makes a model: the arguments of `find_model`, in a run's configuration and an adapter's card."""

FORMAT = 1
TRAINABLE = "trainable.safetensors"


@frozen
class Source:
    """A model that was found: where it is, which backbone loads it, and with which options.

    Args:
        backbone: registered name.
        location: local folder or Hub id.
        options: of the backbone, from the model's `d4k.json`, or as the model was registered.
        adapters: folders of low-rank adapters that belong to it.
        training: what the model was trained with, from its `d4k.json`; see `d4k.training.trained_with`.
        revision: of a Hub id.
        variant: of the weight files.
        transformer: file, folder or Hub id of a denoiser that replaces the model's own.
    """

    backbone: str
    location: str
    options: Mapping[str, Any]
    adapters: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(factory=dict)
    revision: str | None = None
    variant: str | None = None
    transformer: str | None = None


def find_model(
    model: str, *, revision: str | None = None, variant: str | None = None, transformer: str | None = None
) -> Source:
    """Find a model by registered name, local folder (also of a run, or of a checkpoint in it) or Hub id.

    Args:
        model: as the user names it.
        revision: of a Hub id.
        variant: of the weight files.
        transformer: registered name, file, folder (also of a run, or of a checkpoint in it) or Hub id of another
            denoiser; what it was trained with comes with it.

    Raises:
        UnknownNameError: it is none of these.
        CheckpointError: its `model_index.json` is missing, unreadable or of a pipeline that no plugin loads.
        ConfigError: a revision was given for what is not on the Hub.
    """
    source = _find(model, revision, variant)
    if transformer is None:
        return source
    entry = _registered(transformer)
    location = transformer if entry is None else entry.target
    if (Path(location) / "model" / "model_index.json").is_file():
        location = str(Path(location) / "model")
    state = _state(Path(location))
    chosen = location if state is None else str(state / TRAINABLE)
    told = {} if entry is None else entry.options
    card = read_card(location) if Path(location).is_dir() else {}
    options = {**source.options, **told, **card.get("options", {})}
    return evolve(source, transformer=chosen, options=options, training=card.get("training", source.training))


def _find(model: str, revision: str | None, variant: str | None) -> Source:
    entry = _registered(model)
    location = model if entry is None else entry.target
    folder = Path(location)
    if revision is not None and folder.is_dir():
        raise ConfigError(f"revision '{revision}' is of a Hub id, and {location} is a folder: leave it out")
    inner = (folder / "model" / "model_index.json", folder / "adapter" / CARD)
    finished = next((file.parent for file in inner if file.is_file()), None)
    if finished is not None:
        location = str(finished)
    elif (state := _state(folder)) is not None:
        return _from_state(state)
    elif entry is None and not folder.is_dir():
        _check_hub_id(model)
    card = read_card(location, revision)
    if "base" in card:
        return _with_adapter(location, card, variant)
    name = entry.backbone if entry is not None else card.get("backbone") or _detect(location, revision)
    told = {} if entry is None else entry.options
    options, trained = {**told, **card.get("options", {})}, card.get("training", {})
    return Source(str(name), location, options, training=trained, revision=revision, variant=variant)


def _registered(model: str) -> Entry | None:
    """The registered checkpoint of that name, or the one that is this Hub id."""
    names = registry()
    if ("checkpoint", model) in names.entries:
        return names.get("checkpoint", model)
    entries = (names.get("checkpoint", name) for name in names.names("checkpoint"))
    return next((entry for entry in entries if entry.target == model), None)


def _with_adapter(folder: str, card: Mapping[str, Any], variant: str | None) -> Source:
    """The model that an adapter was trained on, with the adapter."""
    try:
        given = {name: card.get(name) for name in LOADED_WITH}
        base = find_model(card["base"], **{**given, "variant": variant or given["variant"]})
    except (CheckpointError, UnknownNameError) as error:
        raise CheckpointError(
            f"the adapter in {folder} was trained on '{card['base']}', which cannot be had: {error} "
            "Or give that model under another name, and this folder as its adapter."
        ) from error
    options = {**base.options, **card.get("options", {})}
    training = card.get("training", base.training)
    return evolve(base, options=options, adapters=(*base.adapters, folder), training=training)


def _check_hub_id(model: str) -> None:
    if "/" in model and not model.startswith((".", "/", "~")) and model.count("/") == 1:
        return
    names = registry()
    hint = "Or give a folder in the diffusers layout, or a Hub id such as owner/name."
    try:
        names.get("checkpoint", model)  # raises the reason if the plugin of that name did not load
    except UnknownNameError:
        raise UnknownNameError("model", model, names.names("checkpoint"), hint) from None


def _state(folder: Path) -> Path | None:
    """The checkpoint that a folder is, or the newest of the run that it is."""
    return folder if (folder / TRAINABLE).is_file() else latest_state(folder / "checkpoints")


def _from_state(state: Path) -> Source:
    """The model a run began with, as its configuration says, with what the run had learnt by then."""
    record = state.parent.parent / "config.toml"
    if not record.is_file():
        raise CheckpointError(
            f"{state} holds a denoiser alone, and {record}, which names its model, is not there: "
            f"give the model, and {state / TRAINABLE} as its transformer"
        )
    config = read_toml(record)
    if "adapter" in config:
        ended = (record.parent / "adapter").is_dir()
        way = f"its run has ended: give {record.parent}" if ended else "finish its run with d4k train --resume"
        raise CheckpointError(f"{state} holds the state of an adapter, which is no model: {way}")
    base = find_model(config["model"], **{name: config.get(name) for name in LOADED_WITH})
    return evolve(base, options={**base.options, **config.get("backbone", {})}, transformer=str(state / TRAINABLE))


def _detect(model: str, revision: str | None) -> str:
    index = _fetch_json(model, "model_index.json", revision)
    if index is None:
        if (Path(model) / "config.json").is_file():
            raise CheckpointError(f"{model} holds one part of a model: give the model, and this as its transformer")
        if Path(model).is_dir():
            raise CheckpointError(f"{model} has no model_index.json; d4k reads models in the diffusers layout")
        raise CheckpointError(f"{model} has no model_index.json, or the Hub cannot be reached. {hub.OFFLINE}")
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


def read_card(model: str, revision: str | None = None) -> dict[str, Any]:
    """What `write_card` wrote into a folder or Hub repository; empty where there is none.

    Raises:
        CheckpointError: it is unreadable, or of a newer format.
    """
    card = _fetch_json(model, CARD, revision) or {}
    if card.get("format", FORMAT) != FORMAT:
        raise CheckpointError(f"{model}/{CARD} has format {card['format']}; this d4k reads format {FORMAT}: update d4k")
    for key in ("options", "training"):
        if not isinstance(card.get(key, {}), dict):
            raise CheckpointError(f"{model}/{CARD} must hold a table under '{key}', got {card[key]!r}")
    return card


def _fetch_json(model: str, name: str, revision: str | None = None) -> dict[str, Any] | None:
    folder = Path(model)
    path = folder / name if folder.is_dir() else hub.fetch_file(model, name, revision)
    if path is None or not path.is_file():
        return None
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
        CheckpointError: a part is missing or corrupt, or does not fit its configuration; the message names it.
        ConfigError: the placement cannot be had on this machine.
    """
    if placement.device.type == "meta":
        return empty_pipeline(
            pipeline_class, partial(_fetch_json, source, revision=placement.revision), placement.dtype
        )
    memory.check_placement(placement)
    try:
        with _quiet():
            return memory.place(_read_pipeline(pipeline_class, source, placement), placement)
    except CheckpointError as error:
        raise CheckpointError(f"cannot load '{source}' as {pipeline_class.__name__}: {error}") from error
    except D4KError:
        raise
    except Exception as error:
        # diffusers, transformers and safetensors raise a dozen unrelated types for a damaged checkpoint
        advice = "Is a file missing or cut short? Download it again." if Path(source).is_dir() else hub.OFFLINE
        raise CheckpointError(
            f"cannot load '{source}' as {pipeline_class.__name__}: "
            f"{type(error).__name__}: {_first_line(error)} {advice}"
        ) from error


def _read_pipeline(pipeline_class: Any, source: str, placement: Placement) -> Any:
    denoiser = memory.DENOISER
    replaced = denoiser if placement.transformer else ""
    folder = Path(source)
    if not folder.is_dir():
        folder = hub.fetch_model(source, placement.revision, placement.variant, without=replaced)
    weights.check_model(folder, placement.variant, skip=(replaced,))
    known = weights.model_parts(folder)
    parts = {}
    if placement.transformer:
        parts[denoiser] = _read_denoiser(known[denoiser][1], folder / denoiser, placement)
    elif placement.quantize:
        parts[denoiser] = _read_part(known[denoiser][1], folder / denoiser, placement, memory.quantization(placement))
    if placement.offload == "disk":  # part by part, so that memory holds the largest, not all
        for name, (_, cls) in known.items():
            parts[name] = parts.get(name) or _read_part(cls, folder / name, placement)
            memory.offload_part(parts[name], name, placement)
    return pipeline_class.from_pretrained(folder, dtype=placement.dtype, variant=placement.variant, **parts)


def _read_part(cls: Any, folder: Path, placement: Placement, quantization: Any = None) -> Any:
    variant = weights.used_variant(folder, placement.variant)
    settings = {} if quantization is None else {"quantization_config": quantization}
    return cls.from_pretrained(folder, dtype=placement.dtype, variant=variant, **settings)


def _read_denoiser(cls: Any, config: Path, placement: Placement) -> Any:
    """The denoiser that replaces the model's own: a file with the model's configuration, or a folder with its own."""
    path = hub.fetch_denoiser(str(placement.transformer))
    quantization = memory.quantization(placement)
    if path.is_dir():
        weights.check_part(path, cls, placement.variant)
        return _read_part(cls, path, placement, quantization)
    as_it_is = weights.check_single_file(path, cls, config) and path.suffix in weights.SAFE
    if quantization is None:
        return _read_single_file(cls, path, config, placement)
    # diffusers quantises what from_pretrained reads, and not what from_single_file does
    with tempfile.TemporaryDirectory(prefix="d4k-transformer-") as name:
        folder = Path(name)
        if as_it_is:
            shutil.copyfile(config / "config.json", folder / "config.json")
            (folder / weights.WEIGHTS).symlink_to(path.resolve())
        else:
            _read_single_file(cls, path, config, placement).save_pretrained(folder)
        return _read_part(cls, folder, evolve(placement, variant=None), quantization)


def _read_single_file(cls: Any, path: Path, config: Path, placement: Placement) -> Any:
    content = str(path) if path.suffix in weights.SAFE else weights.read_pickle(path)
    return cls.from_single_file(content, config=str(config), dtype=placement.dtype, local_files_only=True)


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


def write_card(
    folder: Path,
    backbone: str,
    options: Mapping[str, Any],
    *,
    training: Mapping[str, Any] | None = None,
    base: str | None = None,
    base_loaded_with: Mapping[str, str | None] | None = None,
) -> None:
    """Write `d4k.json`, so that the model is loaded again with the same backbone and options.

    Args:
        folder: of a model or an adapter.
        backbone: registered name.
        options: of the backbone.
        training: what the model was trained with; see `d4k.training.trained_with`.
        base: for an adapter, the model it was trained on; what is on this disk is recorded by its absolute path.
        base_loaded_with: for an adapter, those of `LOADED_WITH` that the model was loaded with.
    """
    card: dict[str, Any] = {"format": FORMAT, "backbone": backbone, "options": dict(options)}
    if training:
        card["training"] = dict(training)
    if base is not None:
        card["base"] = _absolute(base)
    given = {name: value for name, value in (base_loaded_with or {}).items() if value is not None}
    if "transformer" in given:
        given["transformer"] = _absolute(given["transformer"])
    write_json(folder / CARD, card | given)


def _absolute(name: str) -> str:
    """A name that is valid from every folder."""
    registered = ("checkpoint", name) in registry().entries
    return name if registered or not Path(name).exists() else str(Path(name).resolve())


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
        weights = {name: tensor.detach().contiguous() for name, tensor in _trained(module).items()}
        rest = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        with _disk_errors():
            save_file(weights, temporary / TRAINABLE)
            torch.save(rest, temporary / "optimizer.pt")
        write_json(temporary / "state.json", {"format": FORMAT, "step": step})
    return target


def _trained(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a run changes: all of the module, or where part of it is frozen only the rest."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return module.state_dict() if len(trained) == len(list(module.parameters())) else dict(trained)


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
        trained = _trained(module)
        kept = {name: tensor for name, tensor in module.state_dict().items() if name not in trained}
        module.load_state_dict({**kept, **load_file(folder / TRAINABLE)})
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
