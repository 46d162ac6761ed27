"""Checkpoints of a run: all that it needs to go on, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from d4k.errors import CheckpointError, D4KError, first_line
from d4k.files import atomic_folder, write_json
from d4k.models import OPTIMIZER, STATE, TRAINABLE, RunFolder, disk_errors

__all__ = ["load_state", "save_state"]

FORMAT = 1
AGAIN = "Delete that folder to resume from the one before."


def save_state(run: RunFolder, step: int, module: torch.nn.Module, optimizer: Any, schedule: Any) -> Path:
    """Write all that a run needs to go on, whole or not at all.

    Args:
        run: where the run is kept.
        step: optimizer steps done.
        module: unwrapped.
        optimizer: torch optimizer.
        schedule: torch learning-rate schedule.

    Returns:
        The folder of the checkpoint, such as `checkpoints/step-00000100` in that of the run.

    Raises:
        OutputError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    target = run.state(step)
    with atomic_folder(target) as temporary:
        weights = {name: tensor.detach().contiguous() for name, tensor in trained_tensors(module).items()}
        rest = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        with disk_errors():
            save_file(weights, temporary / TRAINABLE)
            torch.save(rest, temporary / OPTIMIZER)
        write_json(temporary / STATE, {"format": FORMAT, "step": step})
    return target


def trained_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a run changes: all of the module, or where part of it is frozen only the rest."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return module.state_dict() if len(trained) == len(list(module.parameters())) else dict(trained)


def steps_done(folder: Path) -> int:
    """How many optimizer steps a checkpoint has behind it.

    Raises:
        CheckpointError: its record is damaged.
    """
    try:
        return int(json.loads((folder / STATE).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot resume from {folder}: {_said(error)} {AGAIN}") from error


def load_state(folder: Path, module: torch.nn.Module, optimizer: Any, schedule: Any) -> int:
    """Put a run back to where `save_state` left it.

    Args:
        folder: of the checkpoint.
        module: unwrapped.
        optimizer: torch optimizer.
        schedule: torch learning-rate schedule.

    Returns:
        Optimizer steps done.

    Raises:
        CheckpointError: a file is missing, damaged or not readable, or belongs to another model.
        D4KError: there is not enough memory.
    """
    try:
        trained = trained_tensors(module)
        kept = {name: tensor for name, tensor in module.state_dict().items() if name not in trained}
        module.load_state_dict({**kept, **load_file(folder / TRAINABLE)})
        rest = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
        optimizer.load_state_dict(rest["optimizer"])
        schedule.load_state_dict(rest["schedule"])
    except Exception as error:
        if out_of_memory(error):
            raise D4KError(
                f"there is not enough memory to resume from {folder}, which is not to blame: {_said(error)} "
                "Close what else uses it, and resume again"
            ) from error
        if isinstance(error, PermissionError):
            raise CheckpointError(f"cannot read the checkpoint {folder}: {error.strerror}") from error
        # a damaged file shows as any of a dozen types, depending on where it was cut
        raise CheckpointError(f"cannot resume from {folder}: {_said(error)} {AGAIN}") from error
    return steps_done(folder)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
