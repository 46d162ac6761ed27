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
from d4k.models import DTYPES, RunFolder, adapter_numbers
from d4k.protocols import Backbone, LatentSpec
from d4k.training.data.pictures import Chosen
from d4k.training.data.views import cache_folder

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
        latents: of the pictures in a cache that is still to be made, at least.
    """

    checkpoint: int
    at_once: int
    left: int
    result: int
    latents: int = 0

    @property
    def needed(self) -> int:
        """The most that the run's folder holds at a time."""
        return max(self.at_once * self.checkpoint, self.left * self.checkpoint + self.result)


def disk_of(backbone: Backbone, config: RunConfig, chosen: Chosen) -> Disk:
    """What a run of this configuration writes, from below: names, headers and encoded captions are not counted.

    Args:
        backbone: loaded, also on the meta device; not yet prepared for the run.
        config: of the run.
        chosen: its pictures.
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
    return Disk(checkpoint, *kept_at_once(config.training), result, _latents(backbone, config, chosen))


def _latents(backbone: Backbone, config: RunConfig, chosen: Chosen) -> int:
    """Bytes of the latents of each picture in a cache that is still to be made; what is in one already is not known."""
    folder = cache_folder(config)
    if folder is None or folder.exists():
        return 0
    moments = 2 if hasattr(backbone, "encode_posterior") else 1  # mean and log-variance
    spec, each = backbone.latent, moments * DTYPES[config.data.cache_dtype].itemsize * (config.data.crops or 1)
    numbers = (len(bucket.pictures) * spec.channels * _positions(spec, bucket.size) for bucket in chosen.buckets)
    return each * sum(numbers)


def _positions(spec: LatentSpec, size: tuple[int, int]) -> int:
    return (size[0] // spec.downscale) * (size[1] // spec.downscale)


def refuse_no_room(backbone: Backbone, config: RunConfig, chosen: Chosen) -> None:
    """Refuse a run whose checkpoints, result and cache do not fit on the disk.

    Args:
        backbone: loaded, also on the meta device; not yet prepared for the run.
        config: of the run; checkpoints that it has already need no more room.
        chosen: its pictures.

    Raises:
        OutputError: they do not; it says how much is needed, and how much is free.
    """
    disk, run, folder = disk_of(backbone, config, chosen), RunFolder(Path(config.output_dir)), cache_folder(config)
    needed = disk.needed - len(run.states()) * disk.checkpoint
    beside = folder is not None and disk.latents > 0
    if folder is not None and _device(folder) != _device(run.path):
        _refuse(folder, disk.latents, "the latents of the run's pictures", "or name a data.cache on another disk")
        beside = False
    needed += disk.latents if beside else 0
    many = f"{disk.at_once:,} checkpoints" if disk.at_once > 1 else "a checkpoint"
    what = f"{many} of {disk.checkpoint / GB:,.1f} GB, what is trained" + (" and the cache" if beside else "")
    way_out = "lower training.keep_last, " if disk.at_once > 2 else ""
    _refuse(run.path, needed, what, f"{way_out}or name an output_dir on another disk")


def _refuse(folder: Path, needed: int, what: str, way_out: str) -> None:
    free = free_disk(folder)
    if needed > free:
        raise OutputError(
            f"{folder} needs {needed / GB:,.1f} GB of disk for {what}, and {free / GB:,.1f} GB are free there: make "
            f"room, {way_out}"
        )


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _device(folder: Path) -> int:
    """Which file system a folder is on, or will be."""
    return _existing(folder).stat().st_dev


def free_disk(folder: Path) -> int:
    """Bytes that can be written into a folder, which need not exist yet."""
    return shutil.disk_usage(_existing(folder)).free


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(module))


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    return [*module.parameters(), *module.buffers()]
