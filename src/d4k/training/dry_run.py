"""Before the night: everything that a run does but train, and what came out of it."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from attrs import frozen

from d4k.config import RunConfig
from d4k.models import Model, RunFolder
from d4k.protocols import Backbone, Dataset, Loss
from d4k.training.data.cache.upkeep import stats
from d4k.training.data.measured import Measured
from d4k.training.data.pictures import Chosen
from d4k.training.data.views import cache_folder
from d4k.training.deviations import deviations_of_run
from d4k.training.disk import Disk, disk_of, free_disk
from d4k.training.engine import make_engine
from d4k.training.fine_tune import opened
from d4k.training.loop import Loop
from d4k.training.refusals import refuse_hopeless
from d4k.training.run import check_run, make_feed, make_validation, released
from d4k.training.state import steps_done

__all__ = ["DryRun", "dry_run", "dry_run_from_config"]

WARM_UP, MEASURED = 1, 3
"""Steps before those that are timed, in which memory is taken and kernels are chosen; and those."""


@frozen(eq=False)
class DryRun:
    """What a run would be.

    Args:
        config: of the run.
        chosen: the pictures that it trains on.
        unusable: pictures that the dataset itself leaves out, each with the reason.
        tokens: of a picture of each bucket, in their order.
        trained: numbers that are trained.
        numbers: of the denoiser, without an adapter.
        processes: that share the run.
        strategy: how they share it.
        device: where the first of them computes.
        disk: what it writes.
        free: bytes that are free on the disk of its folder.
        cache: where latents and text are kept, and bytes of what is there; None where there is no cache.
        done: steps that it has behind it already.
        seconds: that each of a few steps took.
        peak: bytes that the device held at most in these steps; None where it does not count them.
        deviations: what it trains otherwise than the model was trained or is sampled, in words.
    """

    config: RunConfig
    chosen: Chosen
    unusable: tuple[str, ...]
    tokens: tuple[int, ...]
    trained: int
    numbers: int
    processes: int
    strategy: str
    device: torch.device
    disk: Disk
    free: int
    cache: tuple[Path, int] | None
    done: int
    seconds: tuple[float, ...]
    peak: int | None
    deviations: tuple[str, ...]

    @property
    def pictures_a_step(self) -> int:
        """Pictures of one optimizer step, in all processes."""
        training = self.config.training
        return training.batch_size * training.accumulation * self.processes

    @property
    def steps_an_epoch(self) -> float:
        """Steps in which every picture is trained once."""
        return self.chosen.count / self.pictures_a_step

    @property
    def epochs(self) -> float:
        """How often every picture is trained in the whole run."""
        return self.config.training.steps / self.steps_an_epoch

    @property
    def step_seconds(self) -> float:
        """The median of the steps that were timed."""
        return statistics.median(self.seconds)


def dry_run(
    backbone: Backbone,
    dataset: Dataset,
    loss: Loss,
    config: RunConfig,
    *,
    resume: bool = False,
    model: Model | None = None,
    device: torch.device | None = None,
) -> DryRun:
    """Do all that `d4k.training.train` does but train: its checks, its first batches, and the time of its steps.

    Nothing is written, but what the run finds in its cache. The model is not to be used afterwards: a few steps have
    changed its weights. Call it where the processes of the launch can speak to each other.

    Args:
        backbone: loaded.
        dataset: captioned pictures.
        loss: from a predicted velocity and a step to (B,).
        config: of the run.
        resume: of a run that goes on from its newest checkpoint.
        model: what is known of the model.
        device: where this process computes; None is where the weights are.

    Raises:
        D4KError: as of `d4k.training.train`.
    """
    place = device or next(backbone.trainable.parameters()).device
    engine, run = make_engine(config, place), RunFolder(Path(config.output_dir))
    with engine.processes.together():
        refuse_hopeless(config, dataset, place, engine.processes.count)
    with _quiet():  # what it warns of, the result says
        feed = make_feed(engine, backbone, dataset, config, model)
    state = check_run(engine, backbone, feed, config, resume)
    numbers, disk = _count(backbone.trainable), disk_of(backbone, config, feed.chosen)
    validation = make_validation(engine, backbone, feed, loss, config, model)
    with released(backbone, feed, config, model):
        loop = Loop(engine, backbone, loss, feed, config, run, validation)
        seconds = loop.time_steps(WARM_UP + MEASURED)[WARM_UP:]
    return DryRun(
        config=config,
        chosen=feed.chosen,
        unusable=_unusable(dataset),
        tokens=tuple(backbone.latent.tokens(bucket.height, bucket.width) for bucket in feed.chosen.buckets),
        trained=_count(backbone.trainable, trained=True),
        numbers=numbers,
        processes=engine.processes.count,
        strategy=engine.strategy,
        device=place,
        disk=disk,
        free=free_disk(run.path),
        cache=_cache(config),
        done=0 if state is None else steps_done(state),
        seconds=tuple(seconds),
        peak=torch.cuda.max_memory_allocated(place) if place.type == "cuda" else None,
        deviations=() if model is None else tuple(deviations_of_run(backbone, model, config, *feed.chosen.largest)),
    )


def dry_run_from_config(
    config: RunConfig, *, device: str | None = None, memory_gb: float | None = None, resume: bool = False
) -> DryRun:
    """Load what a configuration names and go through its run dry; see `dry_run`.

    Args:
        config: of the run.
        device: as of `d4k.Loading`.
        memory_gb: as of `d4k.Loading`.
        resume: of a run that goes on from its newest checkpoint.
    """
    with opened(config, device=device, memory_gb=memory_gb, resume=resume) as it:
        return dry_run(it.backbone, it.dataset, it.loss, config, resume=resume, model=it.loaded.model, device=it.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of `make_feed` that are fields of the result."""
    with warnings.catch_warnings():
        for words in ("are left out: ", "are enlarged, which teaches", "this run differs from how"):
            warnings.filterwarnings("ignore", f".*{words}", UserWarning)
        yield


def _count(module: torch.nn.Module, *, trained: bool = False) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)


def _unusable(dataset: Dataset) -> tuple[str, ...]:
    """What a dataset says of the pictures that it left out itself."""
    plain = dataset.dataset if isinstance(dataset, Measured) else dataset
    return tuple(str(said) for name in ("skipped", "filtered") for said in getattr(plain, name, ()))


def _cache(config: RunConfig) -> tuple[Path, int] | None:
    folder = cache_folder(config)
    return None if folder is None else (folder, sum(part.bytes for part in stats(folder)))
