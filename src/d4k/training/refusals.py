"""What would waste a night, refused before a weight is read."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from accelerate.utils import is_fp16_available

from d4k.adapters import resolve_model
from d4k.config import RunConfig
from d4k.errors import ConfigError, DataError
from d4k.files import is_folder, refuse_unwritable
from d4k.models import DTYPES, ModelRef, training_dtype
from d4k.plugins import create
from d4k.protocols import Backbone, Dataset, Placement
from d4k.store import SHARDS
from d4k.training.data.cache.keys import latent_group
from d4k.training.data.cache.upkeep import stats
from d4k.training.data.pictures import Chosen, choose_pictures
from d4k.training.data.views import cache_folder
from d4k.training.disk import refuse_no_room
from d4k.training.launch import chosen_strategy
from d4k.training.memory import check_memory_settings

__all__ = ["outline", "refuse_foreign_cache", "refuse_hopeless", "refuse_pictures"]


def refuse_hopeless(config: RunConfig, dataset: Dataset, device: torch.device, processes: int = 1) -> None:
    """Refuse a run that cannot come to anything, as far as its settings say.

    Args:
        config: of the run.
        dataset: captioned pictures.
        device: where this process computes.
        processes: that share the run.

    Raises:
        ConfigError: the learning rate is still rising in the end, the device cannot compute in the precision, or
            settings of memory do not go together.
        DataError: there are fewer pictures than processes.
        OutputError: the run's folder cannot be written.
    """
    refuse_schedule(config)
    refuse_precision(config, device)
    check_memory_settings(config, processes, chosen_strategy(config), device)
    refuse_few_pictures(len(dataset), processes // config.parallel.context)
    refuse_unwritable(Path(config.output_dir))


def refuse_pictures(backbone: Backbone, dataset: Dataset, config: RunConfig, processes: int = 1) -> Chosen:
    """Choose the pictures of a run, and refuse too few of them, or a disk without room for the run.

    Args:
        backbone: of the run, loaded or as `outline` makes it.
        dataset: captioned pictures.
        config: of the run.
        processes: that share the run.

    Returns:
        The pictures.

    Raises:
        DataError: nothing is left to train on, there are fewer pictures than processes, or one cannot be used.
        ConfigError: a size does not suit the backbone.
        OutputError: the disk has no room for what the run keeps.
    """
    chosen = choose_pictures(dataset, backbone, config)
    refuse_few_pictures(chosen.count, processes // config.parallel.context)
    refuse_no_room(backbone, config, chosen)
    return chosen


def refuse_foreign_cache(backbone: Backbone, config: RunConfig) -> None:
    """Refuse a cache that is named and holds latents of other autoencoders alone: every picture would be encoded again.

    Args:
        backbone: loaded.
        config: of the run.

    Raises:
        ConfigError: it does.
    """
    folder = cache_folder(config)
    if folder is None or config.data.cache == "auto" or not is_folder(folder / SHARDS, ConfigError):
        return
    held = [part for part in stats(folder) if part.group.kind == "latent"]
    ours = latent_group(backbone, config.data.cache_dtype).model
    if held and ours not in {part.group.model for part in held}:
        count = sum(part.entries for part in held)
        raise ConfigError(
            f"data.cache = '{config.data.cache}' holds {count:,} latents, and none is of the autoencoder of "
            f"'{config.model}' at this downscale, so that all pictures would be encoded again: name the cache of this "
            "model, set data.cache = 'auto', or add to this one with d4k cache RUN.toml"
        )


def refuse_schedule(config: RunConfig) -> None:
    """Refuse a learning rate that is still rising when the run ends.

    Raises:
        ConfigError: it is.
    """
    warmup, steps = config.schedule.warmup_steps, config.training.steps
    if warmup >= steps:
        raise ConfigError(
            f"schedule.warmup_steps = {warmup} is not less than training.steps = {steps}: the learning rate would rise "
            f"until the end and never reach {config.optimizer.lr:g}; lower the one or raise the other"
        )


def refuse_precision(config: RunConfig, device: torch.device) -> None:
    """Refuse a precision that the device cannot compute in.

    Raises:
        ConfigError: it cannot; the message says what it can.
    """
    precision = config.training.precision
    if precision == "fp16" and not (device.type != "cpu" and is_fp16_available()):
        raise ConfigError(
            f"training.precision = 'fp16' needs a GPU, and this run computes on '{device}': choose 'bf16'"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(
            f"training.precision = 'bf16' is more than {torch.cuda.get_device_name(device)} can: choose 'fp16' or 'no'"
        )


def refuse_few_pictures(count: int, processes: int) -> None:
    """Refuse a dataset of which a process would get no picture that another has not.

    Args:
        count: of the pictures.
        processes: that train on different ones; those that share a picture count as one.

    Raises:
        DataError: there are fewer pictures than processes.
    """
    if count == 0:
        raise DataError("the dataset is empty: there is nothing to train on")
    if count < processes:
        raise DataError(
            f"{count} picture{'s' * (count != 1)} cannot keep {processes} processes busy, which train on different "
            f"pictures at a time: add pictures, or start {max(count, 1)} process{'es' * (count > 1)} at most"
        )


def outline(config: RunConfig) -> Backbone | None:
    """The model of a run without its weights, on the meta device; None where it cannot be had.

    A reason to refuse it is left to loading, which gives it in the words of that.
    """
    ref = ModelRef(config.model, config.revision, config.variant, config.transformer, options=config.backbone)
    adapter, optimizer = config.adapter is not None, config.optimizer.name
    dtype = DTYPES[training_dtype(config.training.precision, adapter=adapter, optimizer=optimizer)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model, _ = resolve_model(ref, configs=True)
            backbone: Backbone = create("backbone", model.backbone, source=model.location, **model.options)
            backbone.load(Placement(torch.device("meta"), dtype, model.revision, model.variant, model.transformer))
        except Exception:  # a backbone of a plugin may do anything where tensors have no values
            return None
    return backbone
