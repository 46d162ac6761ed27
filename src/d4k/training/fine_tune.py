"""Fine-tuning a loaded model: what a run records of it, and what it is afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen

from d4k.adapters import TRAINED, load_model, read_adapter
from d4k.config import Component, RunConfig, read_toml
from d4k.errors import ConfigError
from d4k.machine import choose_device
from d4k.models import AppliedAdapter, LoadedModel, Loading, ModelRef, RunFolder, training_dtype
from d4k.plugins import Kind, create
from d4k.processes import Processes
from d4k.protocols import Backbone, Dataset, Loss
from d4k.training.checks import check_quantized
from d4k.training.data.measured import Measured
from d4k.training.folder import check_folder
from d4k.training.launch import check_launch, chosen_strategy, joined
from d4k.training.refusals import outline, refuse_hopeless, refuse_pictures
from d4k.training.result import trained_model
from d4k.training.run import Run, train
from d4k.training.tracking import check_tracking
from d4k.training.validation import check_validation

__all__ = ["Opened", "as_component", "fine_tune", "load_run_model", "opened", "origin", "train_from_config"]


def fine_tune(
    backbone: Backbone,
    loaded: LoadedModel,
    config: RunConfig,
    *,
    dataset: str | Dataset | None = None,
    loss: str | Loss | None = None,
    resume: bool = False,
    on_step: Callable[[int, float], None] | None = None,
    device: torch.device | None = None,
) -> tuple[Run, LoadedModel]:
    """Fine-tune a model in place; see `d4k.Pipeline.run`.

    Args:
        backbone: loaded.
        loaded: what is known of the model.
        config: of the run.
        dataset: an object in place of what the configuration names.
        loss: likewise.
        resume: go on from the newest checkpoint in the output folder.
        on_step: called with each step and its loss.
        device: where this process computes; None is where the weights are.

    Returns:
        The run, and what is known of the model now.

    Raises:
        ConfigError: the model was loaded in a way that cannot be trained, or a setting does not suit it.
    """
    loaded.refuse("fine-tune", "offload", "step_cache")
    check_quantized(loaded, config)
    if config.adapter is not None and loaded.merged:
        raise ConfigError(
            "the model holds merged adapters and is in no folder, so that a new adapter's record could not name it: "
            "save_pretrained first, and load that"
        )
    chosen = _given("dataset", dataset, config.dataset)
    objective = _given("loss", loss, config.loss)
    run = train(backbone, chosen, objective, config, resume=resume, model=loaded.model, on_step=on_step, device=device)
    model = trained_model(backbone, loaded.model, config)
    if run.adapter is None:
        return run, evolve(loaded, model=model, weights=ModelRef(str(run.model)), merged=())
    used = AppliedAdapter(TRAINED, str(run.adapter), read_adapter(run.adapter).sha256)
    return run, evolve(loaded, model=model, adapters={**loaded.adapters, TRAINED: used})


def origin(loaded: LoadedModel, resumed: Path | None = None) -> dict[str, Any]:
    """Which model a run begins with, as its configuration names it.

    Args:
        loaded: the model in memory.
        resumed: folder of a run to resume; one that began with the model as it was loaded goes on with that, although
            its weights are others by now.
    """
    record = RunFolder(resumed).config if resumed is not None else None
    before = read_toml(record) if record is not None and record.is_file() else {}
    ref = loaded.model.ref if before.get("model") == loaded.model.ref.name else loaded.weights
    # a run adds to the options what it trained with; those that it began with are what it goes on with
    options = before.get("backbone", {})
    same = bool(before) and all(loaded.model.options.get(name) == value for name, value in options.items())
    return {"model": ref.name, **ref.files, "backbone": options if same else dict(loaded.model.options)}


def train_from_config(
    config: RunConfig, *, device: str | None = None, memory_gb: float | None = None, resume: bool = False
) -> Run:
    """Load what a configuration names and fine-tune it; a mistake in dataset or loss shows before the model is read.

    Args:
        config: of the run.
        device: as of `d4k.Loading`.
        memory_gb: as of `d4k.Loading`.
        resume: go on from the newest checkpoint in the output folder.
    """
    with opened(config, device=device, memory_gb=memory_gb, resume=resume) as it:
        return fine_tune(
            it.backbone, it.loaded, config, dataset=it.dataset, loss=it.loss, resume=resume, device=it.device
        )[0]


@frozen(eq=False)
class Opened:
    """What the configuration of a run names.

    Args:
        backbone: loaded.
        loaded: what is known of the model.
        dataset: its pictures are measured.
        loss: from a predicted velocity and a step to (B,).
        device: where this process computes.
    """

    backbone: Backbone
    loaded: LoadedModel
    dataset: Dataset
    loss: Loss
    device: torch.device


@contextmanager
def opened(config: RunConfig, *, device: str | None, memory_gb: float | None, resume: bool) -> Iterator[Opened]:
    """Refuse what cannot work, and then load the model; while it is open the processes can speak to each other.

    Args:
        config: of the run.
        device: as of `d4k.Loading`.
        memory_gb: as of `d4k.Loading`.
        resume: the run goes on from its newest checkpoint.
    """
    check_launch(config)
    check_validation(config)
    check_tracking(config)
    place = choose_device(device)
    with joined(config, place):
        processes = Processes()
        with processes.together():
            if processes.first:
                check_folder(config, resume=resume)
            dataset, loss = Measured(_given("dataset", None, config.dataset)), _given("loss", None, config.loss)
            refuse_hopeless(config, dataset, place, processes.count)
            sketch = outline(config)
            if sketch is not None:
                refuse_pictures(sketch, dataset, config, processes.count)
            backbone, loaded = load_run_model(config, place, memory_gb)
        yield Opened(backbone, loaded, dataset, loss, place)


def load_run_model(config: RunConfig, device: torch.device, memory_gb: float | None) -> tuple[Backbone, LoadedModel]:
    """The model of a run; with FSDP2 its denoiser stays on the CPU until it is shared out.

    Args:
        config: of the run.
        device: where this process computes.
        memory_gb: as of `d4k.Loading`.
    """
    adapter = config.adapter
    dtype = training_dtype(config.training.precision, adapter=adapter is not None, optimizer=config.optimizer.name)
    ref = ModelRef(config.model, config.revision, config.variant, config.transformer, options=config.backbone)
    shared = chosen_strategy(config) == "fsdp2"
    bits = None if adapter is None else adapter.quantize
    loading = Loading(device="cpu" if shared else str(device), dtype=dtype, memory_gb=memory_gb, quantize=bits)
    backbone, loaded = load_model(ref, loading)
    if shared:
        for part in backbone.components.values():
            if part is not backbone.trainable:
                part.to(device)
    return backbone, loaded


def as_component(given: object, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """A dataset or loss as a configuration names it; an object is named by its class.

    Raises:
        ConfigError: options were given beside an object.
    """
    if isinstance(given, str):
        return {"name": given, "options": dict(options or {})}
    if options:
        raise ConfigError(f"options were given beside an object ({type(given).__name__}); set them on the object")
    return {"name": type(given).__name__}


def _given(kind: Kind, component: Any, settings: Component) -> Any:
    """The object that was given, or else the registered component that the settings name."""
    if component is None or isinstance(component, str):
        return create(kind, settings.name, **settings.options)
    return component
