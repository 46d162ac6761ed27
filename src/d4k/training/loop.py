"""The steps of a run, from the first or from a checkpoint to the last."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import torch
from diffusers.optimization import get_scheduler

from d4k.adapters import add_adapter, loaded_adapters
from d4k.config import RunConfig
from d4k.models import RunFolder
from d4k.protocols import Backbone, Loss
from d4k.seeds import numbered_seed
from d4k.training.checks import changed
from d4k.training.data.samples import Batch, Feed
from d4k.training.ema import EMA
from d4k.training.engine import Engine
from d4k.training.journal import Journal
from d4k.training.keep import is_due, remove_old, room_wanted
from d4k.training.optimizers import evaluation_weights, make_optimizer, training_mode
from d4k.training.signals import Stop, leave
from d4k.training.skipped import advance, report_skipped
from d4k.training.state import Share, State, save_state
from d4k.training.step import StepResult, training_step
from d4k.training.tracking import Tracking
from d4k.training.validation import Validation

__all__ = ["Loop"]


class Loop:
    """Optimizer, learning-rate schedule and count of steps of a run.

    Args:
        engine: made by `make_engine`.
        backbone: loaded, without adapters but that of an interrupted part of the run, which is replaced.
        loss: from a predicted velocity and a step to (B,).
        feed: where the batches come from.
        config: of the run.
        run: where the run is kept.
        validation: what is looked at between the steps, made before text encoders are released.

    Attributes:
        state: what changes from step to step; load it to resume.
    """

    def __init__(
        self,
        engine: Engine,
        backbone: Backbone,
        loss: Loss,
        feed: Feed,
        config: RunConfig,
        run: RunFolder,
        validation: Validation | None = None,
    ) -> None:
        self.engine, self.backbone, self.loss, self.feed = engine, backbone, loss, feed
        self.config, self.run = config, run
        self.module = backbone.trainable
        _free(self.module, config)
        if config.training.gradient_checkpointing:
            self.module.enable_gradient_checkpointing()  # type: ignore[operator]
        engine.share(self.module)
        offload = config.parallel.offload == "optimizer"
        self.optimizer = make_optimizer(config.optimizer, self.module, seed=config.seed, offload=offload)
        self.schedule = get_scheduler(
            config.schedule.name,
            self.optimizer,
            num_warmup_steps=config.schedule.warmup_steps,
            num_training_steps=config.training.steps,
        )
        self.validation, self.ema = validation, None if config.ema is None else EMA(self.module, config.ema)
        averages = None if self.ema is None else self.ema.tensors
        parts = (self.module, self.optimizer, self.schedule)
        self.state = State(*parts, scaler=engine.scaler, ema=averages, data=feed.chosen.digest)

    def run_steps(self, stop: Stop, on_step: Callable[[int, float], None] | None = None) -> None:
        """Do the steps that are left, with a checkpoint every `training.save_every` and at the end.

        Args:
            stop: what ends the run early, after a step and its checkpoint.
            on_step: called with the step and its loss.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
            DataError: a picture cannot be used.
            D4KError: more steps in a row than `training.max_skipped` were not finite.
            InterruptedRun, TerminatedRun: this process, or another of the launch, was told to stop.
        """
        processes, last = self.engine.processes, self.config.training.steps
        passes = self.config.training.accumulation
        feed = self.feed.batches(self.state.step * passes, last * passes)
        with self._wrapped() as optimizer, stop.deferred(), self._journal() as journal, closing(feed):
            self._look(journal, stop)
            for step in range(self.state.step + 1, last + 1):
                result = self._step(step, feed, optimizer, journal)
                asked = stop.agreed(processes, self.engine.device)
                if asked or is_due(step, self.config.training):
                    self._save()
                if on_step is not None:
                    on_step(step, result.loss)
                if asked:
                    leave(asked, step)
                self._look(journal, stop)
        if self.ema is not None and self.config.ema is not None and self.config.ema.save:
            self.ema.put_into(self.module)
        changed.discard(self.module)

    def time_steps(self, count: int) -> list[float]:
        """Do the first few steps on the batches that they would have, and keep nothing of them.

        The weights are not to be used afterwards: they are no run's.

        Args:
            count: of steps.

        Returns:
            The seconds that each took.
        """
        feed = self.feed.batches(0, count * self.config.training.accumulation)
        if self.config.adapter is None:
            changed.add(self.module)
        with self._wrapped() as optimizer, closing(feed):
            return [self._timed_step(step, feed, optimizer) for step in range(1, count + 1)]

    def _timed_step(self, step: int, feed: Iterator[Batch], optimizer: torch.optim.Optimizer) -> float:
        start = time.perf_counter()
        result = training_step(self.engine, self.backbone, self.loss, feed, self.config, optimizer)
        if self.ema is not None:
            self.ema.update(self.module, step)
        if self.engine.device.type != "cpu":
            torch.accelerator.synchronize()
        if result.skipped and self.engine.processes.first:
            warnings.warn(
                f"step {step} would be left out, since its loss is {result.loss} and its gradient {result.norm}: lower "
                f"optimizer.lr, or look at its pictures ({', '.join(result.ids)})",
                stacklevel=4,
            )
        return time.perf_counter() - start

    def _step(self, step: int, feed: Iterator[Batch], optimizer: torch.optim.Optimizer, journal: Journal) -> StepResult:
        """Do one step and record it; one that is not finite leaves the weights alone."""
        config = self.config
        result = training_step(self.engine, self.backbone, self.loss, feed, config, optimizer)
        if config.adapter is None and not result.skipped:
            changed.add(self.module)
        with self.engine.processes.together():
            journal.add(step, result, float(self.schedule.get_last_lr()[0]))
        if result.skipped:
            with self.engine.processes.together():
                report_skipped(step, result, journal, config.training.max_skipped)
        advance(self.schedule, skipped=result.skipped)
        if self.ema is not None and not result.skipped:
            self.ema.update(self.module, step)
        self.state.step = step
        return result

    def _look(self, journal: Journal, stop: Stop) -> None:
        """Look at the model, where that is due and was not done before the run was interrupted."""
        if self.validation is not None and self.validation.is_due(self.state.step):
            processes, device = self.engine.processes, self.engine.device
            with evaluation_weights(self.optimizer):
                self.validation.look(self.state.step, journal.show, self.ema, lambda: stop.agreed(processes, device))

    def _save(self) -> None:
        """Write a checkpoint, and remove those that it makes superfluous."""
        processes = self.engine.processes
        share = Share.of(self.config, processes, self.engine.strategy)
        with room_wanted(self.run, self.state):
            save_state(self.run, self.state, share, processes)
        with processes.together():
            if processes.first:
                remove_old(self.run, self.config.training)

    def _journal(self) -> Journal:
        processes, last = self.engine.processes, self.config.training.steps
        with processes.together():
            tracking = Tracking(self.config, self.run) if processes.first and self.config.tracking.trackers else None
            try:
                return Journal(self.run, last, self.state.step, self.state.rows, processes.first, tracking)
            except BaseException:
                if tracking is not None:
                    tracking.finish()
                raise

    @contextmanager
    def _wrapped(self) -> Iterator[torch.optim.Optimizer]:
        """The module as the engine computes with it; yields the optimizer so. In the end the module is as it was."""
        self.module.train()
        self.module.zero_grad(set_to_none=True)  # an interrupted run in this process may have left gradients
        wrapped = self.module
        try:
            self.backbone.trainable = wrapped = self.engine.wrap(self.module)
            optimizer = self.engine.wrap_optimizer(self.optimizer)
            with training_mode(self.optimizer):
                yield optimizer
        finally:
            self.backbone.trainable = self.engine.unwrap(wrapped)
            self.module.eval()


def _free(module: torch.nn.Module, config: RunConfig) -> None:
    """Let go of what is trained: all of the module, or a new adapter."""
    if config.adapter is None:
        module.requires_grad_(True)
        return
    if loaded_adapters(module):  # what the part of the run that was interrupted left
        module.unload_lora()  # type: ignore[operator]
    add_adapter(module, config.adapter, seed=numbered_seed(config.seed, "adapter", 0))
