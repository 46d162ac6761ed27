"""From a name to a model: registered, a folder, a run, a checkpoint of a run, or a Hub id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from d4k.config import read_toml
from d4k.errors import CheckpointError, ConfigError, UnknownNameError
from d4k.files import is_file, is_folder
from d4k.models.card import CARD, fetch_json, read_card
from d4k.models.hub import OFFLINE
from d4k.models.run_folder import TRAINABLE, latest_state
from d4k.plugins import Entry, registry

__all__ = ["LOADED_WITH", "Source", "find_model"]

LOADED_WITH = ("revision", "variant", "transformer")
"""What beside its name makes a model: the arguments of `find_model`, in a run's configuration and an adapter's card."""

DEPTH = 8
"""How many adapters and runs may build on each other; more are taken for a circle."""


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
    model: str,
    *,
    revision: str | None = None,
    variant: str | None = None,
    transformer: str | None = None,
    depth: int = 0,
) -> Source:
    """Find a model by registered name, local folder (also of a run, or of a checkpoint in it) or Hub id.

    Args:
        model: as the user names it.
        revision: of a Hub id.
        variant: of the weight files.
        transformer: registered name, file, folder (also of a run, or of a checkpoint in it) or Hub id of another
            denoiser; what it was trained with comes with it.
        depth: how many models build on this one, of `DEPTH` at most.

    Raises:
        UnknownNameError: it is none of these.
        CheckpointError: its `model_index.json` is missing, unreadable or of a pipeline that no plugin loads.
        ConfigError: a revision was given for what is not on the Hub.
    """
    if depth > DEPTH:
        raise CheckpointError(f"'{model}' builds on itself: its {CARD}, or that of its base, names it as the base")
    source = _find(model, revision, variant, depth)
    if transformer is None:
        return source
    entry = _registered(transformer)
    location = transformer if entry is None else entry.target
    if is_file(Path(location) / "model" / "model_index.json", CheckpointError):
        location = str(Path(location) / "model")
    state = _state(Path(location))
    chosen = location if state is None else str(state / TRAINABLE)
    told = {} if entry is None else entry.options
    card = read_card(location) if is_folder(Path(location), CheckpointError) else {}
    options = {**source.options, **told, **card.get("options", {})}
    return evolve(source, transformer=chosen, options=options, training=card.get("training", source.training))


def _find(model: str, revision: str | None, variant: str | None, depth: int) -> Source:
    entry = _registered(model)
    location = model if entry is None else entry.target
    folder = Path(location)
    if revision is not None and is_folder(folder, CheckpointError):
        raise ConfigError(f"revision '{revision}' is of a Hub id, and {location} is a folder: leave it out")
    inner = (folder / "model" / "model_index.json", folder / "adapter" / CARD)
    finished = next((file.parent for file in inner if is_file(file, CheckpointError)), None)
    if finished is not None:
        location = str(finished)
    elif (state := _state(folder)) is not None:
        return _from_state(state, depth)
    elif entry is None and not is_folder(folder, CheckpointError):
        _check_hub_id(model)
    card = read_card(location, revision)
    if "base" in card:
        return _with_adapter(location, card, variant, depth)
    name = entry.backbone if entry is not None else card.get("backbone") or _detect(location, revision)
    told = {} if entry is None else entry.options
    options, trained = {**told, **card.get("options", {})}, card.get("training", {})
    return Source(str(name), location, options, training=trained, revision=revision, variant=variant)


def _registered(model: str) -> Entry | None:
    """The registered checkpoint of that name, or the one that is this Hub id."""
    names = registry()
    if ("checkpoint", model) in names.entries:
        return names.get("checkpoint", model)
    claims = [entries for (kind, _), entries in names.entries.items() if kind == "checkpoint"]
    # a name that two plugins claim is an error where it is asked for, and nowhere else
    return next((entries[0] for entries in claims if len(entries) == 1 and entries[0].target == model), None)


def _with_adapter(folder: str, card: Mapping[str, Any], variant: str | None, depth: int) -> Source:
    """The model that an adapter was trained on, with the adapter."""
    try:
        given = {name: card.get(name) for name in LOADED_WITH}
        base = find_model(card["base"], **{**given, "variant": variant or given["variant"]}, depth=depth + 1)
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
    return folder if is_file(folder / TRAINABLE, CheckpointError) else latest_state(folder / "checkpoints")


def _from_state(state: Path, depth: int) -> Source:
    """The model a run began with, as its configuration says, with what the run had learnt by then."""
    record = state.parent.parent / "config.toml"
    if not is_file(record, CheckpointError):
        raise CheckpointError(
            f"{state} holds a denoiser alone, and {record}, which names its model, is not there: "
            f"give the model, and {state / TRAINABLE} as its transformer"
        )
    config = read_toml(record)
    if "adapter" in config:
        ended = is_folder(record.parent / "adapter", CheckpointError)
        way = f"its run has ended: give {record.parent}" if ended else "finish its run with d4k train --resume"
        raise CheckpointError(f"{state} holds the state of an adapter, which is no model: {way}")
    base = find_model(config["model"], **{name: config.get(name) for name in LOADED_WITH}, depth=depth + 1)
    return evolve(base, options={**base.options, **config.get("backbone", {})}, transformer=str(state / TRAINABLE))


def _detect(model: str, revision: str | None) -> str:
    index = fetch_json(model, "model_index.json", revision)
    if index is None:
        if is_file(Path(model) / "config.json", CheckpointError):
            raise CheckpointError(f"{model} holds one part of a model: give the model, and this as its transformer")
        if is_folder(Path(model), CheckpointError):
            raise CheckpointError(f"{model} has no model_index.json; d4k reads models in the diffusers layout")
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
