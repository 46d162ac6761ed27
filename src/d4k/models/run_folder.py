"""What a run's folder is made of."""

from __future__ import annotations

from pathlib import Path

from d4k.errors import CheckpointError
from d4k.files import is_folder

__all__ = ["TRAINABLE", "latest_state"]

TRAINABLE = "trainable.safetensors"


def latest_state(folder: Path) -> Path | None:
    """The newest checkpoint that `save_state` wrote in `folder`, or None."""
    if not is_folder(folder, CheckpointError):
        return None
    found = sorted(p for p in folder.glob("step-*") if (p / "state.json").is_file())
    return found[-1] if found else None
