"""Checkpoints of a run: all that it needs to go on, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from d4k.errors import CheckpointError, first_line
from d4k.files import atomic_folder, write_json
from d4k.models import TRAINABLE, disk_errors

__all__ = ["load_state", "save_state"]

FORMAT = 1


def save_state(folder: Path, step: int, module: torch.nn.Module, optimizer: Any, schedule: Any) -> Path:
    """Write all that a run needs to go on, whole or not at all.

    Args:
        folder: of the run's checkpoints.
        step: optimizer steps done.
        module: unwrapped.
        optimizer: torch optimizer.
        schedule: torch learning-rate schedule.

    Returns:
        `folder/step-00000100`.

    Raises:
        OutputError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    with atomic_folder(target) as temporary:
        weights = {name: tensor.detach().contiguous() for name, tensor in trained_tensors(module).items()}
        rest = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        with disk_errors():
            save_file(weights, temporary / TRAINABLE)
            torch.save(rest, temporary / "optimizer.pt")
        write_json(temporary / "state.json", {"format": FORMAT, "step": step})
    return target


def trained_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a run changes: all of the module, or where part of it is frozen only the rest."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return module.state_dict() if len(trained) == len(list(module.parameters())) else dict(trained)


def load_state(folder: Path, module: torch.nn.Module, optimizer: Any, schedule: Any) -> int:
    """Put a run back to where `save_state` left it.

    Returns:
        Optimizer steps done.

    Raises:
        CheckpointError: a file is missing or damaged, or belongs to another model.
    """
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        trained = trained_tensors(module)
        kept = {name: tensor for name, tensor in module.state_dict().items() if name not in trained}
        module.load_state_dict({**kept, **load_file(folder / TRAINABLE)})
        rest = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        optimizer.load_state_dict(rest["optimizer"])
        schedule.load_state_dict(rest["schedule"])
        return int(state["step"])
    except Exception as error:
        # a damaged file shows as any of a dozen types, depending on where it was cut
        raise CheckpointError(
            f"cannot resume from {folder}: {type(error).__name__}: {first_line(error)} "
            "Delete that folder to resume from the one before."
        ) from error
