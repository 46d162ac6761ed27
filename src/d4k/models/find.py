"""From a name to a model: registered, a folder, a run, a checkpoint of a run, or a Hub id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import evolve

from d4k.config import RunConfig, from_mapping, read_toml
from d4k.errors import CheckpointError, ConfigError, UnknownNameError
from d4k.files import is_file, is_folder
from d4k.models.card import CARD, Card, fetch_json, read_card
from d4k.models.hub import OFFLINE
from d4k.models.reference import Model, ModelRef, Training, first_said
from d4k.models.run_folder import SHARDS, TRAINABLE, RunFolder
from d4k.plugins import Entry, registry

__all__ = ["find_model", "registered_checkpoint"]

DEPTH = 8
"""How many adapters and runs may build on each other; more are taken for a circle."""


def find_model(ref: ModelRef, learnt: Sequence[Training] = (), *, configs: bool = False) -> Model:
    """Find a model by registered name, local folder (also of a run, or of a checkpoint in it) or Hub id.

    Args:
        ref: as the user names it.
        learnt: records of the adapters in `ref` that are switched on, the first one first.
        configs: let the configuration files that a plugin brings stand for a model on the Hub, which is not asked.

    Returns:
        The model, with the precedence of `d4k.models.reference` applied to its options and its record.

    Raises:
        UnknownNameError: there is no such model.
        CheckpointError: its `model_index.json` is missing, unreadable or of a pipeline that no plugin loads.
        ConfigError: a revision was given for what is not on the Hub.
    """
    if "source" in ref.options:
        raise ConfigError("'source' is no option of a backbone that may be set: it is where the model was found")
    found, card, entry = _find(ref, 0, configs)
    registered = {} if entry is None else entry.options
    told = [record.options for record in learnt]
    training = card.training
    for record in learnt:
        training = training.over(record)
    return evolve(
        found,
        ref=ref,
        options=first_said(ref.options, card.options, card.training.options, *told, registered),
        training=training,
        registered={} if entry is None else entry.sampling,
        configs="" if entry is None else entry.configs,
        adapters={**found.adapters, **ref.adapters},
    )


def _find(ref: ModelRef, depth: int, configs: bool) -> tuple[Model, Card, Entry | None]:
    """Where a model is, its own record, and what is registered of it."""
    if depth > DEPTH:
        raise CheckpointError(f"'{ref.name}' builds on itself: its {CARD}, or that of its base, names it as the base")
    found, card, entry = _find_whole(ref, depth, configs)
    if ref.transformer is None:
        return found, card, entry
    other = registered_checkpoint(ref.transformer)
    location = ref.transformer if other is None else other.target
    if is_file(RunFolder(Path(location)).model / "model_index.json", CheckpointError):
        location = str(RunFolder(Path(location)).model)
    state = _state(Path(location))
    own = read_card(location) if is_folder(Path(location), CheckpointError) else Card()
    told = {} if other is None else other.options
    merged = Card(
        card.backbone,
        first_said(own.options, told, card.options),
        card.training if own.training == Training() else own.training,
    )
    return evolve(found, transformer=location if state is None else _denoiser(state)), merged, entry


def _find_whole(ref: ModelRef, depth: int, configs: bool) -> tuple[Model, Card, Entry | None]:
    """As `_find`, without another denoiser."""
    entry = registered_checkpoint(ref.name)
    location = ref.name if entry is None else entry.target
    folder = Path(location)
    if ref.revision is not None and is_folder(folder, CheckpointError):
        raise ConfigError(f"revision '{ref.revision}' is of a Hub id, and {location} is a folder: leave it out")
    inner = (RunFolder(folder).model / "model_index.json", RunFolder(folder).adapter / CARD)
    finished = next((file.parent for file in inner if is_file(file, CheckpointError)), None)
    if finished is not None:
        location = str(finished)
    elif (state := _state(folder)) is not None:
        return _from_state(state, depth, configs)
    elif entry is None and not is_folder(folder, CheckpointError):
        _check_hub_id(ref.name)
    if configs and entry is not None and entry.configs and ref.revision is None:
        return Model(ref, entry.backbone, entry.configs, variant=ref.variant), Card(entry.backbone), entry
    card = read_card(location, ref.revision)
    if card.base is not None:
        return _with_adapter(
            location, card, evolve(card.base, variant=ref.variant or card.base.variant), depth, configs
        )
    name = entry.backbone if entry is not None else card.backbone or _detect(location, ref.revision)
    return Model(ref, name, location, revision=ref.revision, variant=ref.variant), card, entry


def registered_checkpoint(name: str) -> Entry | None:
    """The registered checkpoint of that name, or the one that is this Hub id; None where there is none."""
    names = registry()
    if ("checkpoint", name) in names.entries:
        return names.get("checkpoint", name)
    entries = (entries for (kind, _), entries in names.entries.items() if kind == "checkpoint")
    return next((one[0] for one in entries if len(one) == 1 and one[0].target == name), None)


def _with_adapter(
    folder: str, card: Card, base: ModelRef, depth: int, configs: bool
) -> tuple[Model, Card, Entry | None]:
    """The model that an adapter was trained on, with the adapter, whose record is that of the whole."""
    try:
        found, own, entry = _find(base, depth + 1, configs)
    except (CheckpointError, UnknownNameError) as error:
        raise CheckpointError(
            f"the adapter in {folder} was trained on '{base.name}', which cannot be had: {error} "
            "Or give that model under another name, and this folder as its adapter."
        ) from error
    training = own.training if card.training == Training() else card.training
    record = Card(own.backbone, first_said(card.options, own.options), training)
    return evolve(found, adapters={**found.adapters, folder: 1.0}), record, entry


def _from_state(state: Path, depth: int, configs: bool) -> tuple[Model, Card, Entry | None]:
    """The model a run began with, as its configuration says, with what the run had learnt by then."""
    run = RunFolder.of_state(state)
    record = run.config
    if not is_file(record, CheckpointError):
        raise CheckpointError(
            f"{state} holds a denoiser alone, and {record}, which names its model, is not there: "
            f"give the model, and {state / TRAINABLE} as its transformer"
        )
    config = from_mapping(RunConfig, read_toml(record))
    if config.adapter is not None:
        ended = is_folder(run.adapter, CheckpointError)
        way = f"its run has ended: give {run.path}" if ended else "finish its run with d4k train --resume"
        raise CheckpointError(f"{state} holds the state of an adapter, which is no model: {way}")
    began = ModelRef(config.model, config.revision, config.variant, config.transformer)
    found, own, entry = _find(began, depth + 1, configs)
    learnt = Training(config.data.width, config.data.height, shift=config.flow.recorded_shift)
    options = first_said(config.backbone, own.options)
    return (
        evolve(found, transformer=_denoiser(state)),
        Card(own.backbone, options, learnt.over(own.training)),
        entry,
    )


def _state(folder: Path) -> Path | None:
    """The checkpoint that a folder is, or the newest of the run that it is."""
    return folder if is_file(folder / TRAINABLE, CheckpointError) else RunFolder(folder).latest_state()


def _denoiser(state: Path) -> str:
    """The file of the weights in a checkpoint of a run that trains all of them."""
    if is_folder(state / SHARDS, CheckpointError):
        raise CheckpointError(
            f"{state} holds its weights in the shares of several processes (FSDP2), which is no model: finish its run "
            "with d4k train --resume, which gathers them"
        )
    return str(state / TRAINABLE)


def _check_hub_id(name: str) -> None:
    if "/" in name and not name.startswith((".", "/", "~")) and name.count("/") == 1:
        return
    names = registry()
    hint = "Or give a folder in the diffusers layout, or a Hub id such as owner/name."
    try:
        names.get("checkpoint", name)  # raises the reason if the plugin of that name did not load
    except UnknownNameError:
        raise UnknownNameError("model", name, names.names("checkpoint"), hint) from None


def _detect(model: str, revision: str | None) -> str:
    """The backbone that loads the pipeline which `model_index.json` names."""
    index = fetch_json(model, "model_index.json", revision)
    if index is None:
        if is_file(Path(model) / "config.json", CheckpointError):
            raise CheckpointError(f"{model} holds one part of a model: give the model, and this as its transformer")
        if is_folder(Path(model), CheckpointError):
            raise CheckpointError(f"{model} has no model_index.json; d4k reads models in the diffusers layout")
        raise CheckpointError(f"{model} has no model_index.json, or the Hub cannot be reached. {OFFLINE}")
    pipeline = index.get("_class_name")
    readers = {
        name: {pipeline for entry in entries for pipeline in entry.pipelines}
        for (kind, name), entries in registry().entries.items()
        if kind == "backbone"
    }
    for name, pipelines in readers.items():
        if pipeline in pipelines:
            return name
    known = ", ".join(sorted(set().union(*readers.values()))) or "none"
    raise CheckpointError(f"{model} is a {pipeline}, which no installed plugin loads. Known: {known}. Try: d4k plugins")
