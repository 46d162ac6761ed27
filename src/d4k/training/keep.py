"""Which checkpoints stay, and what is said where the disk has no room for one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from d4k.config import TrainingSettings
from d4k.errors import OutputError
from d4k.files import remove_folder
from d4k.models import RunFolder
from d4k.training.shards import trained_tensors
from d4k.training.state import State

__all__ = ["checkpoint_bytes", "is_due", "remove_old", "room_wanted"]


def is_due(step: int, settings: TrainingSettings) -> bool:
    """Whether a checkpoint is written after a step."""
    return step == settings.steps or (settings.save_every > 0 and step % settings.save_every == 0)


def remove_old(run: RunFolder, settings: TrainingSettings) -> None:
    """Remove the checkpoints that need not be kept; call it once a new one is whole.

    Args:
        run: where the run is kept.
        settings: `keep_last` newest ones stay, and those whose step is a multiple of `keep_every`.

    Raises:
        OutputError: one cannot be removed.
    """
    if not settings.keep_last:
        return
    for state in run.states()[: -settings.keep_last]:
        step = int(state.name.rpartition("-")[2])
        if not settings.keep_every or step % settings.keep_every:
            remove_folder(state)


@contextmanager
def room_wanted(run: RunFolder, state: State) -> Iterator[None]:
    """Say how much room a checkpoint needs, and how much there is, where it cannot be written.

    Args:
        run: where the run is kept.
        state: of the run.

    Raises:
        OutputError: in place of the one without figures.
    """
    try:
        yield
    except OutputError as error:
        needed, free = checkpoint_bytes(state), shutil.disk_usage(run.path).free
        last = run.latest_state()
        kept = "no checkpoint is kept yet" if last is None else f"{last.name} is whole"
        raise OutputError(
            f"{error}. A checkpoint needs about {needed:,} bytes, and {free:,} are free; {kept}. Make room and go on "
            "with --resume"
        ) from error


def checkpoint_bytes(state: State) -> int:
    """About how many bytes a checkpoint has: the trained weights, the state of their optimizer, and their average."""
    tensors = [*trained_tensors(state.module).values(), *(state.ema or {}).values()]
    moments = state.optimizer.state_dict()["state"].values()  # an offloaded one has them elsewhere than in `state`
    tensors += [value for kept in moments for value in kept.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
