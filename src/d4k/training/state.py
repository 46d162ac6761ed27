"""Checkpoints of a run: all that it needs to go on, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, define, field, fields, frozen
from safetensors.torch import load_file, save_file

from d4k.config import RunConfig
from d4k.errors import CheckpointError, ConfigError, D4KError, first_line
from d4k.files import read_json, read_json_line, write_json, write_text
from d4k.models import EMA, OPTIMIZER, ROWS, SHARDS, STATE, TRAINABLE, RunFolder, disk_errors
from d4k.processes import Processes, shared_folder
from d4k.training.shards import fill, is_shared, read_moments, read_shards, trained_tensors, write_shards

__all__ = ["Share", "State", "load_state", "save_state"]

FORMAT = 2


@frozen
class Share:
    """How a run is shared between processes, which decides whether another launch can go on with it exactly.

    Args:
        processes: how many train.
        strategy: "single", "ddp" or "fsdp2".
        batch_size: pictures that go through the model at once in each.
        accumulation: forward passes of each process that make one optimizer step.
        context: processes that share the tokens of a picture.
    """

    processes: int = 1
    strategy: str = "single"
    batch_size: int = 1
    accumulation: int = 1
    context: int = 1

    @property
    def passes(self) -> int:
        """Batches that make one optimizer step."""
        return self.processes // self.context * self.accumulation

    @classmethod
    def of(cls, config: RunConfig, processes: Processes, strategy: str) -> Share:
        """How a run of these settings is shared."""
        training = config.training
        return cls(processes.count, strategy, training.batch_size, training.accumulation, config.parallel.context)


@define(eq=False)
class State:
    """What of a run changes from step to step; `load_state` puts all of it back in place.

    Args:
        module: unwrapped; with FSDP2 its weights are shared out.
        optimizer: torch optimizer of its trained weights.
        schedule: torch learning-rate schedule.
        step: optimizer steps done.
        scaler: gradient scaler of a run in float16; None in another precision.
        ema: name -> moving average in float32; None without one.
        rows: of `losses.jsonl`, one a step.
        data: digest of the pictures that are trained on; empty where nobody made one.
    """

    module: torch.nn.Module
    optimizer: Any
    schedule: Any
    step: int = 0
    scaler: Any = None
    ema: Mapping[str, torch.Tensor] | None = None
    rows: list[dict[str, Any]] = field(factory=list)
    data: str = ""


def save_state(run: RunFolder, state: State, share: Share | None = None, processes: Processes | None = None) -> Path:
    """Write all that a run needs to go on, whole or not at all. Every process must ask.

    Args:
        run: where the run is kept.
        state: of the run.
        share: how it is shared; None is one process.
        processes: that share it.

    Returns:
        The folder of the checkpoint, such as `checkpoints/step-00000100` in that of the run.

    Raises:
        OutputError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    target, processes = run.state(state.step), processes or Processes()
    with shared_folder(target, processes) as temporary:
        shards: dict[str, int] = {}
        if is_shared(state.module):
            optimizer = write_shards(temporary / SHARDS, state.module, state.optimizer, state.ema)
            shards = {file.name: file.stat().st_size for file in sorted((temporary / SHARDS).iterdir())}
        elif processes.first:
            optimizer = state.optimizer.state_dict()
            _write_whole(temporary, state)
        if processes.first:
            _write_rest(temporary, state, optimizer)
            record = {"format": FORMAT, "step": state.step, "data": state.data, "shards": shards}
            record |= asdict(share) if share else {}
            write_json(temporary / STATE, record)
    return target


def _write_whole(folder: Path, state: State) -> None:
    """Write what is as large as the weights; the optimizer's state goes with the rest."""
    weights = {name: tensor.detach().contiguous() for name, tensor in trained_tensors(state.module).items()}
    with disk_errors():
        save_file(weights, folder / TRAINABLE)
        if state.ema is not None:
            save_file({name: tensor.detach().contiguous() for name, tensor in state.ema.items()}, folder / EMA)


def _write_rest(folder: Path, state: State, optimizer: Mapping[str, Any]) -> None:
    """Write what is in no file of tensors: optimizer (with FSDP2 what it has but tensors), schedule, scaler, losses."""
    rest = {"optimizer": optimizer, "schedule": state.schedule.state_dict()}
    if state.scaler is not None:
        rest["scaler"] = state.scaler.state_dict()
    with disk_errors():
        torch.save(rest, folder / OPTIMIZER)
    write_text(folder / ROWS, "".join(json.dumps(row) + "\n" for row in state.rows))


def steps_done(folder: Path) -> int:
    """How many optimizer steps a checkpoint has behind it.

    Raises:
        CheckpointError: its record is damaged, or of a format that this version does not know.
    """
    return _read_record(folder)["step"]  # type: ignore[no-any-return]


def check_data(folder: Path, digest: str) -> None:
    """Refuse to go on from a checkpoint with other pictures than it was trained on so far.

    Args:
        folder: of the checkpoint.
        digest: of the pictures now, `Chosen.digest`.

    Raises:
        ConfigError: they are others, or have other captions.
        CheckpointError: the record of the checkpoint is damaged.
    """
    record = _read_record(folder)
    if record.get("data", digest) not in ("", digest):
        raise ConfigError(
            f"the dataset is not the one of the first {record['step']} steps: pictures or captions were added, removed "
            "or changed since. Put back what it was, or start a new run"
        )


def share_of(folder: Path) -> Share | None:
    """How the run that wrote a checkpoint was shared; None where an older version did, in one process.

    Raises:
        CheckpointError: its record is damaged, or of a format that this version does not know.
    """
    record = _read_record(folder)
    try:
        return Share(*(record[field.name] for field in fields(Share)))
    except KeyError:
        return None


def check_share(folder: Path, share: Share) -> str | None:
    """Whether a run can go on from a checkpoint in this launch, as if it had not stopped.

    Args:
        folder: of the checkpoint.
        share: how the run is shared now.

    Returns:
        What is not exact, a sentence; None where all is.

    Raises:
        ConfigError: a step would be of other pictures; the message says what to set.
        CheckpointError: the record of the checkpoint is damaged.
    """
    before = share_of(folder)
    if before is None or before == share:
        return None
    if before.batch_size != share.batch_size:
        raise ConfigError(
            f"the run was made of batches of {before.batch_size}, and training.batch_size is {share.batch_size}: "
            f"set it to {before.batch_size}"
        )
    if before.passes != share.passes:
        fits, left = divmod(before.passes, share.processes // share.context)
        way = (
            f"start a number of processes that divides {before.passes}"
            if left
            else f"set training.accumulation to {fits}"
        )
        raise ConfigError(
            f"each step of the run was of {before.passes} batches ({_said_share(before)}), and would be of "
            f"{share.passes} now ({_said_share(share)}): {way}"
        )
    return (
        f"the run was shared by {_said_share(before)} and goes on with {_said_share(share)}: the steps are of the same "
        "pictures and noise, but sums are in another order, so that the last digits may differ"
    )


def _said_share(share: Share) -> str:
    many = "1 process" if share.processes == 1 else f"{share.processes} processes, {share.strategy}"
    split = f", context {share.context}" if share.context > 1 else ""
    return f"{many}, accumulation {share.accumulation}{split}"


def _read_record(folder: Path) -> dict[str, Any]:
    """The record of a checkpoint, with the step it was made at."""
    try:
        record = read_json(folder / STATE, CheckpointError)
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise CheckpointError(f"{STATE} does not say which step it is of")
    except CheckpointError as error:
        raise CheckpointError(f"cannot resume from {folder}: {error}. {_way_out(folder)}") from error
    if record.get("format") not in range(1, FORMAT + 1):
        raise CheckpointError(
            f"cannot resume from {folder}: it is of format {record.get('format')}, and this version of d4k reads up to "
            f"{FORMAT}: resume with the version that wrote it"
        )
    return record


def load_state(folder: Path, state: State, processes: Processes | None = None) -> None:
    """Put a run back to where `save_state` left it, also where another number of processes did. Every process must ask.

    Args:
        folder: of the checkpoint.
        state: of the run, as it begins; it is changed in place.
        processes: that share the run now.

    Raises:
        CheckpointError: a file is missing, damaged or not readable, or belongs to another model.
        D4KError: there is not enough memory.
    """
    with (processes or Processes()).together():
        record = _read_record(folder)
        try:
            _load(folder, record, state)
        except CheckpointError as error:
            raise CheckpointError(f"cannot resume from {folder}: {error}. {_way_out(folder)}") from error
        except Exception as error:
            if out_of_memory(error):
                raise D4KError(
                    f"there is not enough memory to resume from {folder}, which is not to blame: {_said(error)} "
                    "Close what else uses it, and resume again"
                ) from error
            if isinstance(error, PermissionError):
                raise CheckpointError(f"cannot read the checkpoint {folder}: {error.strerror}") from error
            # a damaged file shows as any of a dozen types, depending on where it was cut
            raise CheckpointError(f"cannot resume from {folder}: {_said(error)} {_way_out(folder)}") from error


def _way_out(folder: Path) -> str:
    """What to do about a checkpoint that cannot be used."""
    if any(state.name < folder.name for state in RunFolder.of_state(folder).states()):
        return "Delete that folder to resume from the one before."
    return "There is none before it: put back a copy of that folder, or start a new run."


def _load(folder: Path, record: Mapping[str, Any], state: State) -> None:
    rest = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    module, optimizer = state.module, state.optimizer
    if record.get("shards"):
        moments = read_shards(folder / SHARDS, record["shards"], module, optimizer, rest["optimizer"], state.ema)
    else:
        fill(trained_tensors(module), load_file(folder / TRAINABLE))
        if state.ema is not None:
            fill(state.ema, load_file(folder / EMA))
        moments = read_moments(module, optimizer, rest["optimizer"])
    optimizer.load_state_dict(moments)
    state.schedule.load_state_dict(rest["schedule"])
    if state.scaler is not None and "scaler" in rest:
        state.scaler.load_state_dict(rest["scaler"])
    if (folder / ROWS).is_file():
        lines = (folder / ROWS).read_text(encoding="utf-8").splitlines()
        state.rows[:] = [read_json_line(line, folder / ROWS, number) for number, line in enumerate(lines, 1)]
    state.step = record["step"]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
