"""The steps of a run, from the first or from a checkpoint to the last."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.optimization import get_scheduler

from d4k.adapters import add_adapter, loaded_adapters
from d4k.config import RunConfig
from d4k.errors import D4KError
from d4k.models import RunFolder
from d4k.protocols import Backbone, Loss
from d4k.seeds import numbered_seed
from d4k.training.checks import changed
from d4k.training.data.samples import Feed
from d4k.training.ema import EMA
from d4k.training.engine import Engine
from d4k.training.journal import Journal, Silence, open_journal
from d4k.training.optimizers import make_optimizer
from d4k.training.state import save_state
from d4k.training.step import training_step
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
        optimizer: of the weights that are trained.
        schedule: of its learning rate.
        done: optimizer steps done; set it, with the two above, to resume.
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
        self.config, self.run, self.done = config, run, 0
        self.module = backbone.trainable
        _free(self.module, config)
        self.module.train()
        if config.training.gradient_checkpointing:
            self.module.enable_gradient_checkpointing()  # type: ignore[operator]
        engine.share(self.module)
        self.validation, self.ema = validation, None if config.ema is None else EMA(self.module, config.ema)
        self.optimizer = make_optimizer(config.optimizer, self.module)
        self.schedule = get_scheduler(
            config.schedule.name,
            self.optimizer,
            num_warmup_steps=config.schedule.warmup_steps,
            num_training_steps=config.training.steps,
        )

    def run_steps(self, on_step: Callable[[int, float], None] | None = None) -> None:
        """Do the steps that are left, with a checkpoint every `training.save_every` and at the end.

        Args:
            on_step: called with the step and its loss.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
            DataError: a picture cannot be used.
            D4KError: the loss is not finite.
        """
        self.module.zero_grad(set_to_none=True)  # an interrupted run in this process may have left gradients
        self.backbone.trainable = wrapped = self.engine.wrap(self.module)
        optimizer = self.engine.wrap_optimizer(self.optimizer)
        try:
            with open_journal(self.engine.processes, self.run, self.config.training.steps, self.done) as journal:
                if self.validation is not None:
                    self.validation.begin(self.done)
                self._look(self.done, journal)
                for step in range(self.done + 1, self.config.training.steps + 1):
                    value = self._step(step, optimizer, journal)
                    self._look(step, journal)
                    if on_step is not None:
                        on_step(step, value)
            if self.ema is not None and self.config.ema is not None and self.config.ema.save:
                self.ema.put_into(self.module)
        finally:
            self.backbone.trainable = self.engine.unwrap(wrapped)
            self.module.eval()
        changed.discard(self.module)

    def _step(self, step: int, optimizer: torch.optim.Optimizer, journal: Journal | Silence) -> float:
        """Do one step, record it, write a checkpoint where one is due, and return the loss."""
        config = self.config
        result = training_step(self.engine, self.backbone, self.loss, self.feed, config, optimizer, step)
        if result.skipped:
            raise D4KError(
                f"the loss became {result.loss} at step {step}; lower optimizer.lr, or set training.precision to "
                "'bf16' or 'no'. Checkpoints up to here are kept."
            )
        if config.adapter is None:
            changed.add(self.module)
        if self.ema is not None:
            self.ema.update(self.module, step)
        journal.add(step, result.loss, result.norm, self.schedule.get_last_lr()[0])
        self.schedule.step()
        every, last = config.training.save_every, config.training.steps
        if step == last or (every and step % every == 0):
            save_state(self.run, step, self.module, self.optimizer, self.schedule)
        return result.loss

    def _look(self, step: int, journal: Journal | Silence) -> None:
        if self.validation is not None:
            self.validation.look(step, journal.show, self.ema)


def _free(module: torch.nn.Module, config: RunConfig) -> None:
    """Let go of what is trained: all of the module, or a new adapter."""
    if config.adapter is None:
        module.requires_grad_(True)
        return
    if loaded_adapters(module):  # what the part of the run that was interrupted left
        module.unload_lora()  # type: ignore[operator]
    add_adapter(module, config.adapter, seed=numbered_seed(config.seed, "adapter", 0))
