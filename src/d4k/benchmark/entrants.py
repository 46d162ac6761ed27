"""The models of a benchmark, looked at before any of them is loaded: what each can do, and what it will be asked."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen

from d4k.adapters import apply_adapter, resolve_model
from d4k.errors import CheckpointError, UnknownNameError
from d4k.files import is_file
from d4k.machine import choose_device
from d4k.models import (
    DTYPES,
    LoadedModel,
    Loading,
    Model,
    ModelRef,
    check_placement,
    fetch_denoiser,
    fetch_model,
    model_parts,
    speed_up,
    weight_files,
)
from d4k.plugins import create
from d4k.protocols import Backbone, Placement
from d4k.sampling import SamplingSettings, choose_settings, settings_record, versions

__all__ = ["UPSCALED", "Entrant", "file_digests", "look_at", "name_entrants", "own_size", "own_sizes", "weights_of"]

UPSCALED = "-upscaled"
"""After the name of a model: its pictures of its own size, enlarged."""

SMALL = (".json", ".txt", ".model")
"""Endings of the small files of a model that change what it computes: configurations and tokenizers."""


@frozen(eq=False)
class Entrant:
    """A model that takes part, made of shapes alone.

    Args:
        name: of its folder and of its row.
        ref: as the user names it.
        loading: how it will be loaded.
        loaded: what its recipes record.
        backbone: on the meta device.
        settings: what it samples with at the size of the benchmark.
        own: what it samples with at its own size; None where the benchmark asks for no larger one.
    """

    name: str
    ref: ModelRef
    loading: Loading
    loaded: LoadedModel
    backbone: Backbone
    settings: SamplingSettings | None = None
    own: SamplingSettings | None = None

    def recipe(self, settings: SamplingSettings, prompt: str, seed: int) -> dict[str, Any]:
        """All that makes one of its pictures what it is."""
        return {**self.loaded.recipe(prompt, seed, settings_record(settings)), "versions": versions()}

    def settle(self, size: tuple[int, int], given: Mapping[str, Any]) -> Entrant:
        """The entrant, with what it samples with at a size and at its own.

        Args:
            size: width and height in pixels.
            given: what is given of sampling beside the size.

        Raises:
            ConfigError: it cannot sample that size.
        """
        model, (width, height) = self.loaded.model, size
        settings = choose_settings(self.backbone, model, {**given, "width": width, "height": height})
        smaller = (own_size(known, size, self.backbone.latent.granularity) for known in own_sizes(self))
        own = next((found for found in smaller if found is not None), None)
        if own is None:
            return evolve(self, settings=settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model that was trained larger since is sampled otherwise on purpose
            small = choose_settings(self.backbone, model, {**given, "width": own[0], "height": own[1]})
        return evolve(self, settings=settings, own=small)


def look_at(name: str, ref: ModelRef, loading: Loading) -> Entrant:
    """Find a model and make its shapes; of its files only the configurations and its adapters are read.

    Raises:
        UnknownNameError: there is no such model, device, dtype, offload, quantisation, back-end or step cache.
        CheckpointError: its configuration or an adapter cannot be read.
        ConfigError: the backbone has no such option, or this machine cannot do what is asked.
    """
    if loading.dtype not in DTYPES:
        raise UnknownNameError("dtype", loading.dtype, DTYPES)
    device, dtype = choose_device(loading.device), DTYPES[loading.dtype]
    check_placement(
        Placement(device, dtype, offload=loading.offload, quantize=loading.quantize, memory_gb=loading.memory_gb)
    )
    model, adapters = resolve_model(ref)
    backbone: Backbone = create("backbone", model.backbone, source=model.location, **model.options)
    backbone.load(Placement(torch.device("meta"), dtype, model.revision, model.variant, model.transformer))
    loaded = LoadedModel(model, evolve(loading, device=device.type), ref)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*to a meta parameter in the current model, which is a no-op")
        for adapter, scale in adapters:
            loaded = apply_adapter(backbone.trainable, loaded, adapter, scale)
    if loading.attention or loading.step_cache:
        speed_up(backbone.trainable, attention=loading.attention, step_cache=loading.step_cache)
    return Entrant(name, ref, loading, loaded, backbone)


def own_sizes(entrant: Entrant) -> list[tuple[int, int]]:
    """Width and height in pixels that a model was trained at last, and what its configuration was made for."""
    size, trained = entrant.backbone.defaults.size, entrant.loaded.model.training
    return [(trained.width or size, trained.height or size), (size, size)]


def own_size(trained: tuple[int, int], wanted: tuple[int, int], unit: int) -> tuple[int, int] | None:
    """A size of about as many pixels as a model was trained at, in the shape that is wanted.

    Args:
        trained: width and height in pixels.
        wanted: likewise.
        unit: that both sides must be multiples of.

    Returns:
        Width and height, or None where the wanted size is not larger.

    >>> own_size((1024, 1024), (4096, 4096), 32), own_size((1024, 1024), (1024, 1024), 32)
    ((1024, 1024), None)
    """
    scale = math.sqrt(trained[0] * trained[1] / (wanted[0] * wanted[1]))
    width, height = (max(unit, round(side * scale / unit) * unit) for side in wanted)
    return (width, height) if scale < 1 and width * height < wanted[0] * wanted[1] else None


def name_entrants(refs: Sequence[ModelRef]) -> list[str]:
    """A name for each model that a folder and a row can have, after the model's own; equal ones are numbered.

    >>> name_entrants([ModelRef("tiny-sd3"), ModelRef("runs/first/model"), ModelRef("other/tiny-sd3")])
    ['tiny-sd3', 'first', 'tiny-sd3-2']
    """
    names: list[str] = []
    for ref in refs:
        parts = [part for part in Path(ref.name).parts if part not in ("model", "adapter", "/", ".", "..")]
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", parts[-1] if parts else "").strip("-.") or "model"
        taken = {folder for used in names for folder in (used, used + UPSCALED)}
        chosen, count = plain, 1
        while taken & {chosen, chosen + UPSCALED}:
            count += 1
            chosen = f"{plain}-{count}"
        names.append(chosen)
    return names


def weights_of(model: Model) -> dict[str, str]:
    """SHA-256 of each file that a model is read from, by its path below the model's folder; reads all of them once.

    A file in the Hub's cache is stored under its SHA-256, which is then taken from there.

    Raises:
        CheckpointError: a file cannot be had or read.
    """
    files = dict(_files(model))
    found = file_digests(list(files.values()), CheckpointError)
    return dict(zip(files, found, strict=True))


def _files(model: Model) -> Iterator[tuple[str, Path]]:
    if not model.location:
        return
    folder = Path(model.location)
    if not folder.is_dir():
        folder = fetch_model(model.location, model.revision, model.variant)
    if model.transformer:
        path = fetch_denoiser(model.transformer)
        inner = weight_files(path, model.variant) if path.is_dir() else (path,)
        yield from ((f"transformer of its own/{file.name}", file) for file in inner)
    for file in _own_files(folder, model.variant):
        yield file.relative_to(folder).as_posix(), file


def _own_files(folder: Path, variant: str | None) -> list[Path]:
    """Weights and small files of the parts that a pipeline names; of a folder without an index, all there is."""
    if not is_file(folder / "model_index.json", CheckpointError):
        return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    weights = {file for part in model_parts(folder) for file in weight_files(folder / part, variant)}
    small = {path for path in folder.glob("*/*") if path.suffix in SMALL and path.is_file()}
    return sorted({folder / "model_index.json", *weights, *small})


def file_digests(files: Sequence[Path], error: type[Exception]) -> list[str]:
    """SHA-256 of files, in hexadecimal, a few at a time.

    Raises:
        Exception: of the type `error`: a file cannot be read; the message names it.
    """

    def one(file: Path) -> str:
        try:
            if (blob := file.resolve()).parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
                return blob.name
            with file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as fault:
            raise error(f"cannot read {file}: {fault.strerror or fault}") from fault

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, files))
