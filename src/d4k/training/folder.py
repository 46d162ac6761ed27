"""Opening a run's folder: a new one, or one to go on in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from d4k.config import RunConfig, read_toml, write_toml
from d4k.errors import ConfigError
from d4k.files import empty_folder, sweep
from d4k.models import RunFolder
from d4k.training.state import steps_done

__all__ = ["find_state", "open_folder"]

FREE = ("training.steps", "training.save_every")
"""What may be another on resuming than it was when the run began."""

SHARED = ("training.accumulation", "parallel.strategy", "parallel.offload")
"""What may be another in another launch; `check_share` sees to it that the steps are of the same pictures."""


def find_state(run: RunFolder, config: RunConfig) -> Path | None:
    """The checkpoint from which a run is resumed.

    Args:
        run: where it is kept; what a killed process was writing there is removed.
        config: what it is resumed with.

    Returns:
        The newest checkpoint; None where the run was interrupted before its first.

    Raises:
        ConfigError: there is no run, it began with other settings, or it has done more steps than are asked for.
        CheckpointError: the checkpoint does not say how many steps it has done.
    """
    sweep(run.path)
    sweep(run.checkpoints)
    if not run.config.is_file():
        raise ConfigError(f"nothing to resume in {run.path}: it holds no run; start the run without --resume")
    different = sorted(_changes(read_toml(run.config), config))
    if different:
        raise ConfigError(
            f"cannot resume {run.path} with other settings than it began with: {', '.join(different)}. "
            f"Give those of {run.config}, or start a new run. Only {' and '.join(FREE)} may change."
        )
    state = run.latest_state()
    done = 0 if state is None else steps_done(state)
    if done > config.training.steps:
        raise ConfigError(
            f"the run in {run.path} has done {done} steps, and training.steps is {config.training.steps}: "
            f"give {done} or more to resume it, or start a new run"
        )
    return state


def open_folder(run: RunFolder, config: RunConfig, resume: bool) -> None:
    """Keep the configuration of a run, in an empty folder or in that of the run to resume.

    Raises:
        OutputError: the folder of a new run is not empty, or cannot be written.
    """
    if not resume:
        empty_folder(run.path)
    write_toml(config, run.config)


def _changes(before: Mapping[str, Any], config: RunConfig) -> Iterator[str]:
    old, new = _flat(before), _flat(attrs.asdict(config))
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key) and key not in (*FREE, *SHARED):
            yield key


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
