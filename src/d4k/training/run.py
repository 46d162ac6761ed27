"""Flow-matching fine-tuning of any backbone with any loss, through accelerate.

Everything random in a run comes from `seed` and the number of the sample, never from a running state: a run that is
interrupted and resumed sees the same pictures, crops, noise and noise levels as one that is not.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from pathlib import Path

import torch
from attrs import frozen

from d4k.config import RunConfig
from d4k.models import Model, RunFolder
from d4k.processes import Processes
from d4k.protocols import Backbone, Dataset, Loss
from d4k.training.caching import fill_cache
from d4k.training.checks import check_adapters, check_memory, check_precision, check_unchanged
from d4k.training.data.release import Released
from d4k.training.data.samples import Feed
from d4k.training.data.source import Encoding
from d4k.training.data.views import held_out_views
from d4k.training.deviations import note_of_run
from d4k.training.engine import Engine, check_context, make_engine
from d4k.training.folder import find_state, open_folder
from d4k.training.held_out import encode_held_out
from d4k.training.journal import read_losses
from d4k.training.launch import check_launch, joined
from d4k.training.lock import owned
from d4k.training.loop import Loop
from d4k.training.noise import training_shift
from d4k.training.refusals import refuse_few_pictures, refuse_foreign_cache, refuse_hopeless, refuse_pictures
from d4k.training.result import save_result
from d4k.training.signals import Stop
from d4k.training.state import Share, check_data, check_share, load_state
from d4k.training.tracking import check_tracking
from d4k.training.validation import Validation, check_validation

__all__ = ["Run", "check_run", "make_feed", "make_validation", "released", "train"]


@frozen
class Run:
    """A finished fine-tuning run.

    Args:
        output_dir: holds `config.toml`, `losses.jsonl`, `checkpoints/`, `tensorboard/`, and `model/` or `adapter/`.
        steps: optimizer steps done.
        losses: loss of each step; NaN where it was not finite, and the step was skipped.
    """

    output_dir: Path
    steps: int
    losses: tuple[float, ...]

    @property
    def model(self) -> Path:
        """What `Pipeline.from_pretrained` loads as the fine-tuned model: a diffusers folder, or the run's own."""
        return RunFolder(self.output_dir).model if self.adapter is None else self.output_dir

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter, which diffusers' `load_lora_weights` loads too; None without one."""
        folder = RunFolder(self.output_dir).adapter
        return folder if folder.is_dir() else None


def train(
    backbone: Backbone,
    dataset: Dataset,
    loss: Loss,
    config: RunConfig,
    *,
    resume: bool = False,
    model: Model | None = None,
    on_step: Callable[[int, float], None] | None = None,
    device: torch.device | None = None,
) -> Run:
    """Fine-tune the backbone's trainable module, or an adapter of it.

    Args:
        backbone: loaded; its trainable module is changed in place, or given an adapter that stays.
        dataset: captioned pictures.
        loss: from a predicted velocity and a step to (B,).
        config: of the run; `model`, `dataset` and `loss` in it are names for the record.
        resume: go on from the newest checkpoint in the output folder, or from the beginning where a run was
            interrupted before its first.
        model: what is known of the model: a card beside the result says it, and `flow.shift = "auto"` goes by it; None
            is nothing.
        on_step: called with the step and its loss, in every process.
        device: where this process computes; None is where the weights are. With FSDP2 they may lie on the CPU until
            they are shared out.

    Raises:
        OutputError: the output folder is not empty, or cannot be written.
        ConfigError: a setting does not suit the backbone or the launch, or differs from that of the run to resume.
        DataError: a picture cannot be used.
        CheckpointError: the checkpoint to resume from is damaged.
        D4KError: the loss was not finite in too many steps, or there is not enough memory to resume.
        InterruptedRun: SIGINT arrived; it is a KeyboardInterrupt, raised once the step is done and a checkpoint is
            kept. A second SIGINT does not wait.
        TerminatedRun: SIGTERM arrived, likewise; it is a SystemExit with the code 143.
    """
    check_launch(config)
    check_validation(config)
    check_tracking(config)
    place = device or next(backbone.trainable.parameters()).device
    stop, run = Stop(), RunFolder(Path(config.output_dir))
    with stop.listening(), joined(config, place):
        processes = Processes()
        with processes.together():
            refuse_hopeless(config, dataset, place, processes.count)
        with owned(run, processes):
            engine = make_engine(config, place)
            feed = make_feed(engine, backbone, dataset, config, model)
            state = check_run(engine, backbone, feed, config, resume)
            validation = make_validation(engine, backbone, feed, loss, config, model)
            with released(backbone, feed, config, model), _broken_off(engine, backbone):
                loop = _open(Loop(engine, backbone, loss, feed, config, run, validation), state)
                loop.run_steps(stop, on_step)
            return _close(engine, backbone, config, model)


def make_feed(engine: Engine, backbone: Backbone, dataset: Dataset, config: RunConfig, model: Model | None) -> Feed:
    """Choose the pictures, fill their cache, say what is odd about them, and make ready to take them in order."""
    processes = engine.processes
    with processes.together():
        chosen = refuse_pictures(backbone, dataset, config, processes.count)
        refuse_foreign_cache(backbone, config)
    filled = fill_cache(backbone, chosen, config, processes)
    with processes.together():
        if filled is not None:
            chosen = chosen.without(filled.unreadable, filled.source.contents)
        refuse_few_pictures(chosen.count, engine.pictures[1])
        notes = [*chosen.warnings(), *(() if filled is None else filled.notes)]
        notes += [] if model is None else note_of_run(backbone, model, config, *chosen.largest)
        for sentence in notes if processes.first else ():
            warnings.warn(sentence, stacklevel=2)
        source = Encoding(backbone, dataset, config.data.posterior) if filled is None else filled.source
        shift_at = None if model is None else lru_cache(partial(training_shift, backbone, model, config.flow))
        return Feed(source, chosen, config, engine.device, *engine.pictures, shift_at)


def make_validation(
    engine: Engine, backbone: Backbone, feed: Feed, loss: Loss, config: RunConfig, model: Model | None
) -> Validation | None:
    """What is looked at between the steps; what it needs of the text encoders and the autoencoder is encoded here."""
    if config.validation is None:
        return None
    with engine.processes.together():
        held_out = encode_held_out(feed.source, feed.chosen.dataset, held_out_views(feed.chosen))
        return Validation(engine, backbone, loss, config, held_out, model)


def check_run(engine: Engine, backbone: Backbone, feed: Feed, config: RunConfig, resume: bool) -> Path | None:
    """Refuse what cannot work, in all processes or in none, and find the checkpoint that the run goes on from."""
    run, module, processes = RunFolder(Path(config.output_dir)), backbone.trainable, engine.processes
    with processes.together():
        check_adapters(module, config, resume)
        check_precision(module, config)
        found = find_state(run, config, resume=resume) if processes.first else None
        inexact = None
        if found is not None:
            check_data(found, feed.chosen.digest)
            inexact = check_share(found, Share.of(config, processes, engine.strategy))
        if inexact is not None:
            warnings.warn(inexact, stacklevel=2)
    state: Path | None = processes.tell(found)
    with processes.together():
        check_unchanged(module, config, restored=state is not None)
        if engine.strategy != "fsdp2":  # whose weights still lie whole on the CPU, and no device will hold them so
            check_memory(backbone, feed.crop, config)
        check_context(backbone, feed, config)
    return state


def released(backbone: Backbone, feed: Feed, config: RunConfig, model: Model | None) -> AbstractContextManager[object]:
    """A block in which text encoders and autoencoder are out of memory, where all that they would encode is cached."""
    if model is None or isinstance(feed.source, Encoding):
        return nullcontext()
    seen = config.validation is not None and config.validation.prompts  # pictures are decoded
    return Released(backbone, revision=model.revision, variant=model.variant, keep=("vae",) if seen else ())


@contextmanager
def _broken_off(engine: Engine, backbone: Backbone) -> Iterator[None]:
    """A block that leaves the weights whole where it ends early, as far as one process can."""
    try:
        yield
    except BaseException:
        engine.break_off(backbone.trainable)
        raise


def _open(loop: Loop, state: Path | None) -> Loop:
    """Open the folder of a run that can work, and go back to its newest checkpoint."""
    processes = loop.engine.processes
    with processes.together():
        if processes.first:
            open_folder(loop.run, loop.config)
    if state is not None:
        load_state(state, loop.state, processes)
    if loop.validation is not None:
        loop.validation.begin(loop.state.step)
    return loop


def _close(engine: Engine, backbone: Backbone, config: RunConfig, model: Model | None) -> Run:
    """Save what was trained, in the first process; the others wait for it."""
    run, processes = RunFolder(Path(config.output_dir)), engine.processes
    engine.gather(backbone.trainable)
    losses: tuple[float, ...] = ()
    with processes.together():
        if processes.first:
            save_result(backbone, run, config, model)
            losses = tuple(math.nan if row["loss"] is None else row["loss"] for row in read_losses(run.path))
    return Run(run.path, config.training.steps, processes.tell(losses))
