"""Tensors of a checkpoint that no process has whole, through torch.distributed.checkpoint: safetensors, no pickle.

Each process writes a file of its shares. Any number of processes reads them: each takes what falls into its own shares,
or all of it where it has the module whole.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from d4k.errors import CheckpointError, first_line

__all__ = ["fill", "is_shared", "read_moments", "read_shards", "trained_tensors", "write_shards"]

WEIGHTS, MOMENTS, AVERAGES = "weights/", "moments/", "ema/"


def trained_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What a run changes: all of the module, or where part of it is frozen only the rest."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    return module.state_dict() if len(trained) == len(list(module.parameters())) else dict(trained)


def is_shared(module: torch.nn.Module) -> bool:
    """Whether the weights of a module are shared out."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def write_shards(
    folder: Path, module: torch.nn.Module, optimizer: Any, ema: Mapping[str, torch.Tensor] | None
) -> dict[str, Any]:
    """Write the weights that a run changes, the tensors of its optimizer and its average. Every process must ask.

    Args:
        folder: to write into; it is made.
        module: whose weights are shared out.
        optimizer: of them.
        ema: name -> moving average.

    Returns:
        What is left of the optimizer's `state_dict`: settings, and numbers that every process has.

    Raises:
        OSError: the disk is full, or the folder cannot be written, in this process or in another.
    """
    left = optimizer.state_dict()
    tensors = {WEIGHTS + name: tensor.detach() for name, tensor in trained_tensors(module).items()}
    tensors |= {AVERAGES + name: tensor.detach() for name, tensor in (ema or {}).items()}
    for index, name in enumerate(_names(module, optimizer)):
        values = left["state"].get(index, {})
        tensors |= {f"{MOMENTS}{name}/{key}": value for key, value in values.items() if isinstance(value, DTensor)}
        left["state"][index] = {key: value for key, value in values.items() if not isinstance(value, DTensor)}
    try:
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        raise OSError(f"is the disk full? {_reason(error)}") from error
    return left  # type: ignore[no-any-return]


def read_shards(
    folder: Path,
    sizes: Mapping[str, int],
    module: torch.nn.Module,
    optimizer: Any,
    left: Mapping[str, Any],
    ema: Mapping[str, torch.Tensor] | None,
) -> dict[str, Any]:
    """Put back what `write_shards` wrote, into weights that are shared out or whole; no process waits for another.

    Args:
        folder: with the files.
        sizes: file name -> bytes, as they were written.
        module: its weights are replaced.
        optimizer: of them; it is left alone.
        left: what `write_shards` returned.
        ema: name -> moving average, replaced.

    Returns:
        The whole of the optimizer's `state_dict`.

    Raises:
        CheckpointError: a file is missing, damaged or of another size, or belongs to another model.
    """
    found = {file.name: file.stat().st_size for file in folder.iterdir()} if folder.is_dir() else {}
    other = sorted(name for name in {*sizes, *found} if sizes.get(name) != found.get(name))
    if other:
        raise CheckpointError(f"{folder.name}/{other[0]} is missing, cut short or does not belong there")
    reader = HuggingFaceStorageReader(str(folder))
    tensors = {WEIGHTS + name: tensor.detach() for name, tensor in trained_tensors(module).items()}
    tensors |= {AVERAGES + name: tensor.detach() for name, tensor in (ema or {}).items()}
    parameters, state = dict(module.named_parameters()), {}
    stored: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    for index, name in enumerate(_names(module, optimizer)):
        state[index] = dict(left["state"].get(index, {}))
        start = f"{MOMENTS}{name}/"
        for key in (key for key in stored if key.startswith(start)):
            kept = torch.zeros_like(parameters[name].detach(), dtype=stored[key].properties.dtype)
            tensors[key] = state[index][key.removeprefix(start)] = kept
    try:
        with warnings.catch_warnings():  # that each process reads for itself is meant
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    except CheckpointException as error:
        raise CheckpointError(_reason(error)) from error
    return {**left, "state": state}


def fill(target: Mapping[str, torch.Tensor], source: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors that every process has whole, by name; one that is shared out takes its share.

    Raises:
        CheckpointError: the names or shapes are others.
    """
    other = sorted(target.keys() ^ source.keys())
    if other:
        raise CheckpointError(f"'{other[0]}' is in one of the model and the checkpoint alone; is it of another model?")
    with torch.no_grad():
        for name, tensor in target.items():
            if tensor.shape != source[name].shape:
                shapes = f"{tuple(source[name].shape)}, and {tuple(tensor.shape)} here"
                raise CheckpointError(f"'{name}' is of shape {shapes}; is it of another model?")
            tensor.copy_(_like(source[name], tensor))


def read_moments(module: torch.nn.Module, optimizer: Any, stored: dict[str, Any]) -> dict[str, Any]:
    """The `state_dict` of an optimizer whose tensors every process has whole, shared out as the weights are."""
    parameters = dict(module.named_parameters())
    for index, name in enumerate(_names(module, optimizer)):
        values, parameter = stored["state"].get(index, {}), parameters[name]
        for key, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[key] = _like(value, parameter)
    return stored


def _like(whole: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor, or this process's share of it, where the other is shared out: rows, as `fully_shard` does."""
    if not isinstance(other, DTensor):
        return whole
    mesh, share = other.device_mesh, other.to_local()
    first = mesh.get_local_rank() * math.ceil(len(whole) / mesh.size())
    rows = whole[first : first + len(share)].to(share.device)
    shape, stride = whole.shape, whole.contiguous().stride()
    return DTensor.from_local(rows, mesh, other.placements, run_check=False, shape=shape, stride=stride)


def _names(module: torch.nn.Module, optimizer: Any) -> list[str]:
    """The names of an optimizer's parameters, in the order in which its `state_dict` numbers them."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _reason(error: CheckpointException) -> str:
    """The first line of what went wrong first."""
    fault = next(iter(error.failures.values()))[0] if error.failures else error
    return f"{type(fault).__name__}: {first_line(fault)}"
