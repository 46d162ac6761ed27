"""All that a benchmark is going to do, settled and checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from d4k.benchmark.entrants import UPSCALED, Entrant, look_at, name_entrants, own_sizes
from d4k.benchmark.photographs import read_samples
from d4k.benchmark.sampling import OWN_SIZE, PICTURES
from d4k.benchmark.settings import BenchmarkSettings
from d4k.errors import ConfigError
from d4k.images.upscale import upscaler_settings
from d4k.plugins import create
from d4k.protocols import Sample
from d4k.sampling import Job, SamplingSettings, settings_record
from d4k.seeds import numbered_seed

__all__ = ["MODELS", "PHOTOGRAPHS", "ROWS", "UPSCALED", "Plan", "Row", "entrant_record", "make_plan"]

PHOTOGRAPHS = "photographs"
"""Folder of the pictures of the dataset, cut to the size; also the name of their row."""

MODELS = "models"
"""Folder of the folders of the models."""

ROWS = "rows"
"""Folder of what was measured of every picture."""


@frozen(eq=False)
class Row:
    """Pictures that are measured: those of a model, or those that it sampled at its own size and that were enlarged.

    Args:
        name: of its folder.
        entrant: the model.
        settings: what it samples with.
        upscaled: whether its pictures are enlarged afterwards.
    """

    name: str
    entrant: Entrant
    settings: SamplingSettings
    upscaled: bool

    def folder(self, output: Path) -> Path:
        """Where its scores are."""
        return output / MODELS / self.name

    def pictures(self, output: Path) -> Path:
        """Where the pictures are that are measured."""
        return self.folder(output) / PICTURES

    def sampled(self, output: Path) -> Path:
        """Where the pictures are as the model sampled them."""
        return self.folder(output) / (OWN_SIZE if self.upscaled else PICTURES)


@frozen(eq=False)
class Plan:
    """All that a benchmark is going to do.

    Args:
        settings: as they were given.
        samples: of the dataset.
        width: of all pictures in pixels.
        height: likewise.
        entrants: the models.
        upscaling: what decides the pictures of the upscaler beside its options, such as the digest of its weights.
        jobs: what every model samples: a picture for each caption, from noise of its own.
        rows: of the table, but for the photographs.
    """

    settings: BenchmarkSettings
    samples: Sequence[Sample]
    width: int
    height: int
    entrants: Sequence[Entrant]
    upscaling: Mapping[str, Any] = field(factory=dict)
    jobs: Sequence[Job] = field(init=False)
    rows: Sequence[Row] = field(init=False)

    @jobs.default
    def _jobs(self) -> list[Job]:
        return [
            Job(sample.caption, seed=picture_seed(self.settings.seed, number), id=Path(sample.id).stem)
            for number, sample in enumerate(self.samples)
        ]

    @rows.default
    def _rows(self) -> list[Row]:
        found = []
        for entrant in self.entrants:
            assert entrant.settings is not None
            found.append(Row(entrant.name, entrant, entrant.settings, False))
            if entrant.own is not None:
                found.append(Row(entrant.name + UPSCALED, entrant, entrant.own, True))
        return found

    @property
    def upscaler(self) -> str:
        """The upscaler as a table names it: where it has weights, with the name and the digest of their file."""
        file, sha256 = (str(self.upscaling.get(key, "")) for key in ("file", "sha256"))
        return " ".join(filter(None, (self.settings.upscaler, file, sha256[:12])))

    @property
    def record(self) -> dict[str, Any]:
        """What the manifest says of it, but for hashes, metrics and versions."""
        settings = self.settings
        options = {**settings.dataset_options, **({} if settings.split is None else {"split": settings.split})}
        return {
            "dataset": {"name": settings.dataset, "options": options},
            "width": self.width,
            "height": self.height,
            "seed": settings.seed,
            "steps": settings.steps,
            "guidance": settings.guidance,
            "upscaler": {"name": settings.upscaler, "options": dict(settings.upscaler_options)}
            | ({"settings": dict(self.upscaling)} if self.upscaling else {}),
            "loading": settings.loading.recorded | {"device": self.entrants[0].loaded.loading.device},
        }


def picture_seed(seed: int, number: int) -> int:
    """The seed of the starting noise of picture `number`; of 32 bits, so that file names stay short."""
    return numbered_seed(seed, "benchmark", number) % 2**32


def make_plan(settings: BenchmarkSettings) -> Plan:
    """Look at the dataset and at every model, and settle what each samples with.

    Raises:
        UnknownNameError: there is no such dataset, model or upscaler.
        ConfigError: a model cannot sample pictures of the size, or an option does not suit.
        DataError: the dataset cannot be read, or is empty.
        CheckpointError: a model, or the network of the upscaler, cannot be had.
    """
    upscaling = upscaler_settings(create("upscaler", settings.upscaler, **settings.upscaler_options))
    samples = read_samples(settings)
    names = name_entrants(settings.models)
    entrants = [look_at(name, ref, settings.loading) for name, ref in zip(names, settings.models, strict=True)]
    size = settings.given_size or max((own_sizes(entrant)[0] for entrant in entrants), key=lambda own: own[0] * own[1])
    settled = [_settled(entrant, size, settings.sampling) for entrant in entrants]
    return Plan(settings, samples, *size, settled, upscaling)


def _settled(entrant: Entrant, size: tuple[int, int], given: dict[str, Any]) -> Entrant:
    try:
        return entrant.settle(size, given)
    except ConfigError as error:
        raise ConfigError(f"model '{entrant.ref.name}' cannot take part: {error}") from error


def entrant_record(entrant: Entrant, weights: dict[str, str]) -> dict[str, Any]:
    """What the manifest says of a model."""
    assert entrant.settings is not None
    recorded = entrant.recipe(entrant.settings, "", 0)
    fixed = {name: recorded[name] for name in ("model", "options", "adapters", *entrant.ref.files) if name in recorded}
    own = None if entrant.own is None else attrs.asdict(entrant.own)
    sampling = {"sampling": settings_record(entrant.settings), "own_size": own}
    return {"name": entrant.name, **fixed, **sampling, "weights": weights}
