"""What is looked at while a model trains: pictures of fixed prompts, and the loss on pictures that are held out.

Looking changes nothing of a run: the weights, their gradients, the modes of the layers and the random state are
afterwards what they were. What was looked at is kept whole or not at all, so that a run that is resumed neither
repeats nor misses a validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL.Image import Image
from torch.distributed.tensor import DTensor

from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.models import Model, RunFolder
from d4k.protocols import Backbone, Loss
from d4k.training.ema import EMA, share_again
from d4k.training.engine import Engine
from d4k.training.held_out import HeldOut, HeldOutLosses
from d4k.training.validation_pictures import SamplePictures

__all__ = ["Show", "Validation", "check_validation"]


class Show(Protocol):
    """Who is told of what was seen, in the first process: TensorBoard and the trackers."""

    def __call__(self, step: int, figures: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        """Report figures and small pictures of a step by their names."""


class _StoppedError(Exception):
    """The run was told to stop; what was being looked at is left, and looked at again when it is resumed."""


def check_validation(config: RunConfig) -> None:
    """Refuse a validation that looks at nothing, before anything is loaded.

    Raises:
        ConfigError: it has no prompts, and holds no pictures out.
    """
    settings = config.validation
    if settings is not None and not settings.prompts and not settings.holdout:
        raise ConfigError(
            "validation looks at nothing: give validation.prompts, validation.holdout or both, or leave the section out"
        )


class Validation:
    """What is looked at in a run, before its first step, every so many steps, and after its last.

    Make it before text encoders are released and before the module is wrapped. Every process of a launch makes one, and
    calls it at the same steps: they share the pictures, or sample each together where they share the weights (FSDP2).

    Args:
        engine: of the run.
        backbone: loaded.
        loss: of the run.
        config: of the run.
        held_out: pictures that are not trained on, encoded.
        model: what is known of the model; pictures cannot be sampled without.

    Raises:
        ConfigError: there is nothing to look at, or a setting does not suit the backbone.
    """

    def __init__(
        self,
        engine: Engine,
        backbone: Backbone,
        loss: Loss,
        config: RunConfig,
        held_out: Sequence[HeldOut] = (),
        model: Model | None = None,
    ) -> None:
        check_validation(config)
        run = RunFolder(Path(config.output_dir))
        self.engine, self.processes, self.backbone = engine, engine.processes, backbone
        self.module, self.last = backbone.trainable, config.training.steps
        self.every = self.last if config.validation is None else config.validation.every
        self.parts: list[SamplePictures | HeldOutLosses] = []
        if config.validation is not None and config.validation.prompts:
            self.parts.append(SamplePictures(engine, backbone, config, run, model))
        if config.validation is not None and held_out:
            self.parts.append(HeldOutLosses(engine, backbone, loss, config, held_out, run))

    def begin(self, done: int) -> None:
        """Drop what an interrupted run saw after its checkpoint; `look` at `done` follows.

        Args:
            done: optimizer steps done.

        Raises:
            OutputError: the folder cannot be written.
        """
        with self.processes.together():
            if self.processes.first:
                for part in self.parts:
                    part.forget(done)

    def is_due(self, step: int) -> bool:
        """Whether the run is looked at after so many steps."""
        return step % self.every == 0 or step == self.last

    def look(self, step: int, show: Show, ema: EMA | None = None, stopped: Callable[[], object] = lambda: None) -> None:
        """Look at the model if it is due at this step, and was not done before the run was interrupted.

        Args:
            step: optimizer steps done; 0 is before the first.
            show: is told what was seen, in the first process.
            ema: of the run; its weights are looked at in place of the trained ones.
            stopped: asked now and then whether the run is to stop: by every process, and answered alike in all of them.

        Raises:
            OutputError: the folder cannot be written.
        """
        if not self.is_due(step):
            return
        with self.processes.together():
            missing = [not part.seen(step) for part in self.parts] if self.processes.first else []
        wanted = self.processes.tell(missing)
        parts = [part for part, lacks in zip(self.parts, wanted, strict=True) if lacks]
        if not parts:
            return
        try:
            with self._as_sampled(ema):
                found = [self._measured(part, stopped) for part in parts]
        except _StoppedError:
            return
        with self.processes.together():
            if self.processes.first:
                for part, seen in zip(parts, found, strict=True):
                    show(step, *part.keep(step, seen))

    def _measured(self, part: SamplePictures | HeldOutLosses, stopped: Callable[[], object]) -> dict[int, Any]:
        """Index -> what was measured: in the first process all of it."""
        rank, count = self.processes.rank, self.processes.count
        shares = any(isinstance(weight, DTensor) for weight in self.module.parameters())
        together = count == 1 or self.engine.context > 1 or shares
        found: dict[int, Any] = {}

        def tick() -> None:
            if count == 1 and stopped():
                raise _StoppedError

        for first in range(0, len(part), 1 if together else count):
            index = first if together else first + rank
            with self.processes.together():
                if index < len(part):
                    found[index] = part.measure(index, tick)
            if stopped():
                raise _StoppedError
        if together:
            return found
        return {index: each for said in self.processes.gather(found) for index, each in said.items()}

    @contextmanager
    def _as_sampled(self, ema: EMA | None) -> Iterator[None]:
        """The time in which the model is as it is sampled with: averaged, in its modes for use, without gradients."""
        modes, wrapped = [(part, part.training) for part in self.module.modules()], self.backbone.trainable
        devices = [self.engine.device] if self.engine.device.type == "cuda" else []
        averaged = nullcontext() if ema is None else ema.swapped(self.module)
        with averaged, torch.random.fork_rng(devices=devices), torch.no_grad():
            self.backbone.trainable = self.module.eval()
            try:
                yield
            finally:
                self.backbone.trainable = wrapped
                for part, mode in modes:
                    part.training = mode
                share_again(self.module)
