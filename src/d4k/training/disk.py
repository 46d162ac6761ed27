"""What a run writes: how many checkpoints lie on the disk at once, how large they are, and whether there is room."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen
from torch import Tensor, nn

from d4k.adapters import check_targets
from d4k.config import RunConfig, kept_at_once
from d4k.errors import OutputError
from d4k.models import RunFolder, adapter_numbers
from d4k.protocols import Backbone

__all__ = ["Disk", "disk_of", "free_disk", "kept_at_once", "refuse_no_room"]

STATE_BYTES = {"adamw": 8.0, "adamw-8bit": 2.0, "adamw-bf16": 4.0, "prodigy": 16.0, "schedule-free": 8.0, "muon": 4.0}
"""Bytes of an optimizer's state for each trained number, at least; another optimizer may have none."""

GB = 1e9


@frozen
class Disk:
    """What a run writes, in bytes.

    Args:
        checkpoint: of one.
        at_once: most checkpoints that lie there together, the one that is being written included.
        left: checkpoints that stay in the end.
        result: of the trained model, or of the adapter.
    """

    checkpoint: int
    at_once: int
    left: int
    result: int

    @property
    def needed(self) -> int:
        """The most that the run holds at a time."""
        return max(self.at_once * self.checkpoint, self.left * self.checkpoint + self.result)


def disk_of(backbone: Backbone, config: RunConfig) -> Disk:
    """What a run of this configuration writes, from below: names and headers of files are not counted.

    Args:
        backbone: loaded, also on the meta device; not yet prepared for the run.
        config: of the run.
    """
    module, adapter = backbone.trainable, config.adapter
    if adapter is None:
        numbers, trained = _numbers(module), _bytes(module)
        result = sum(map(_bytes, backbone.components.values()))
    else:
        numbers = adapter_numbers(module, check_targets(module, adapter.targets), adapter.rank)
        trained = result = 4 * numbers
    checkpoint = trained + int(numbers * STATE_BYTES.get(config.optimizer.name, 0))
    if config.ema is not None:
        checkpoint += 4 * numbers
    return Disk(checkpoint, *kept_at_once(config.training), result)


def refuse_no_room(backbone: Backbone, config: RunConfig) -> None:
    """Refuse a run whose checkpoints and result do not fit on the disk of its folder.

    Args:
        backbone: loaded, also on the meta device; not yet prepared for the run.
        config: of the run; checkpoints that it has already need no more room.

    Raises:
        OutputError: they do not; it says how much is needed, and how much is free.
    """
    disk, run = disk_of(backbone, config), RunFolder(Path(config.output_dir))
    needed = disk.needed - len(run.states()) * disk.checkpoint
    free = free_disk(run.path)
    if needed > free:
        many = f"{disk.at_once} checkpoints" if disk.at_once > 1 else "a checkpoint"
        way_out = "lower training.keep_last, " if disk.at_once > 2 else ""
        raise OutputError(
            f"{run.path} needs {needed / GB:,.1f} GB of disk for {many} of {disk.checkpoint / GB:,.1f} GB and for what "
            f"is trained, and {free / GB:,.1f} GB are free there: make room, {way_out}or name an output_dir on another "
            "disk"
        )


def free_disk(folder: Path) -> int:
    """Bytes that can be written into a folder, which need not exist yet."""
    return shutil.disk_usage(
        next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    ).free


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    return [*module.parameters(), *module.buffers()]
