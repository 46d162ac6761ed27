"""Opening a run's folder: a new one, or one to go on in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from d4k.config import RunConfig, from_mapping, read_toml, write_toml
from d4k.errors import CheckpointError, ConfigError, OutputError
from d4k.files import is_file, is_folder, refuse_used, sweep
from d4k.models import STATE, RunFolder
from d4k.training.lock import LOCK, refuse_running
from d4k.training.state import steps_done

__all__ = ["check_folder", "find_state", "open_folder"]

FREE = (
    "training.steps",
    "training.save_every",
    "training.keep_last",
    "training.keep_every",
    "training.max_skipped",
    "output_dir",
    "data.cache",
    "data.workers",
    "tracking",
    "validation",
)
"""What may be another on resuming than it was when the run began; of a section, all keys but those in `FIXED`."""

FIXED = {"validation.holdout": 0}
"""What may not, although its section is free, and what it is without the section: the pictures that are trained on
follow from it."""

SHARED = ("training.accumulation", "parallel.strategy", "parallel.offload", "parallel.context")
"""What may be another in another launch; `check_share` sees to it that the steps are of the same pictures."""


def find_state(run: RunFolder, config: RunConfig, *, resume: bool) -> Path | None:
    """The checkpoint from which a run goes on; whatever can be refused of its folder is refused.

    A run that stopped before its first checkpoint is begun again, with `resume` and without.

    Args:
        run: where it is kept; what a killed process was writing there is removed.
        config: what it is started or resumed with.
        resume: whether it goes on from its newest checkpoint.

    Returns:
        The newest checkpoint; None for a run that begins.

    Raises:
        OutputError: a new run would begin in a folder with other things in it.
        ConfigError: there is no run to resume, it began with other settings, or it has done more steps than are asked
            for.
        CheckpointError: the checkpoint does not say how many steps it has done; or the run is finished, and its
            checkpoints are gone.
    """
    if is_folder(run.path, OutputError):
        sweep(run.path)
        sweep(run.checkpoints)
    if not resume:
        _refuse_what_is_kept(run, config)
        return None
    if not is_file(run.config, ConfigError):
        raise ConfigError(f"nothing to resume in {run.path}: it holds no run; start the run without --resume")
    different = changes(_kept_config(run), config)
    if different:
        raise ConfigError(
            f"cannot resume {run.path} with other settings than it began with: {', '.join(different)}. "
            f"Give those of {run.config}, or start a new run. Only {', '.join(FREE)} may change."
        )
    state = run.latest_state()
    _say_what_is_gone(run, state)
    done = 0 if state is None else steps_done(state)
    if done > config.training.steps:
        raise ConfigError(
            f"the run in {run.path} has done {done} steps, and training.steps is {config.training.steps}: "
            f"give {done} or more to resume it, or start a new run"
        )
    return state


def _say_what_is_gone(run: RunFolder, state: Path | None) -> None:
    """Refuse to do a finished run again in its own place, and warn of checkpoints that lack their record."""
    if state is None and (run.model.exists() or run.adapter.exists()):
        raise CheckpointError(
            f"cannot resume {run.path}: it holds a finished run without its checkpoints. Put them back, or name "
            "another output_dir to train from the beginning"
        )
    broken = [path.name for path in run.checkpoints.glob("step-*") if state is None or path.name > state.name]
    if broken:
        begin = "at the beginning" if state is None else f"at {state.name}"
        warnings.warn(
            f"{run.checkpoints / max(broken)} is not used: it has no {STATE}. The run goes on {begin}",
            stacklevel=2,
        )


def open_folder(run: RunFolder, config: RunConfig) -> None:
    """Keep the configuration of a run in its folder, which `owned` made and `find_state` accepted.

    Raises:
        OutputError: it cannot be written.
    """
    write_toml(config, run.config)


def check_folder(config: RunConfig, *, resume: bool) -> None:
    """Refuse a run whose folder is in use, or cannot be resumed, before anything is loaded.

    Raises:
        OutputError, ConfigError, CheckpointError: as of `find_state`; also where another process trains in the folder.
    """
    run = RunFolder(Path(config.output_dir))
    find_state(run, config, resume=resume)
    refuse_running(run)


def changes(before: RunConfig, config: RunConfig) -> list[str]:
    """The settings, sorted, for which a run that is resumed would not be the one that began."""
    return sorted(_changes(_flat(attrs.asdict(before)), _flat(attrs.asdict(config))))


def _refuse_what_is_kept(run: RunFolder, config: RunConfig) -> None:
    """Accept a folder that is new or empty, or holds the beginning of this very run, without a checkpoint."""
    try:
        before = _kept_config(run) if is_file(run.config, OutputError) else None
    except ConfigError:  # a file of that name which is no run's
        before = None
    if before is None:
        refuse_used(run.path, besides=(LOCK,))
        return
    states, way_out = run.states(), "name another output_dir, or remove the folder"
    if states:
        done = int(states[-1].name.rpartition("-")[2])
        raise OutputError(f"{run.path} holds a run that has done {done} steps: go on with --resume, or {way_out}")
    if run.model.exists() or run.adapter.exists():
        raise OutputError(f"{run.path} holds a finished run without its checkpoints: {way_out}")
    different = changes(before, config)
    if different:
        raise OutputError(f"{run.path} holds another run, which differs in {', '.join(different)}: {way_out}")


def _kept_config(run: RunFolder) -> RunConfig:
    """The configuration that a run began with."""
    try:
        return from_mapping(RunConfig, read_toml(run.config))
    except ConfigError as error:
        raise ConfigError(f"{run.config} is no configuration of this d4k: {error}") from error


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in old.keys() | new.keys():
        free = key in (*FREE, *SHARED) or (key.partition(".")[0] in FREE and key not in FIXED)
        if key == "data.cache":  # encoded anew, a latent is not rounded to what the cache keeps
            free = (old[key] == "off") == (new[key] == "off")
        if key == "validation.seed":  # which pictures are held out follows from it
            free = not (old.get("validation.holdout") and new.get("validation.holdout"))
        if not free and not _same(old.get(key, FIXED.get(key)), new.get(key, FIXED.get(key))):
            yield key


def _same(one: Any, other: Any) -> bool:
    """Whether two values of a setting are equal, or name one file or folder."""
    if one == other:
        return True
    try:
        return isinstance(one, str) and isinstance(other, str) and Path(one).samefile(other)
    except (OSError, ValueError):
        return False


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
