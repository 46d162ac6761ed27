"""The cache of a run: filled before its first step, or by itself."""

from __future__ import annotations

from d4k.adapters import load_model
from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.machine import choose_device
from d4k.models import Loading, ModelRef, training_dtype
from d4k.plugins import create
from d4k.protocols import Backbone
from d4k.training.data.cache import CacheSettings, Filled, fill
from d4k.training.data.pictures import Chosen, choose_pictures
from d4k.training.data.views import cache_folder, captions, views
from d4k.training.launch import check_launch, joined
from d4k.training.processes import Processes

__all__ = ["cache_from_config", "fill_cache"]


def fill_cache(backbone: Backbone, chosen: Chosen, config: RunConfig, processes: Processes) -> Filled | None:
    """Encode what a run needs and its cache lacks, in all processes of the launch.

    Args:
        backbone: loaded, with its autoencoder and text encoders.
        chosen: pictures of the run.
        config: of the run.
        processes: that share the work.

    Returns:
        What reads from the cache, and which pictures could not be encoded; None where the run has no cache.

    Raises:
        ConfigError: the settings of the cache do not suit the run.
        DataError: pictures cannot be encoded and `data.unreadable` is "stop", or a caption cannot, or the cache is
            damaged.
        OutputError: the disk is full, or the folder cannot be written.
    """
    folder, data = cache_folder(config), config.data
    if folder is None:
        return None
    settings = CacheSettings(data.cache_dtype, data.posterior, data.unreadable)
    return fill(backbone, chosen.dataset, views(chosen, config), captions(chosen, config), folder, settings, processes)


def cache_from_config(config: RunConfig, *, device: str | None = None, memory_gb: float | None = None) -> Filled:
    """Load what a configuration names and fill the cache of its run, as `train_from_config` does before its steps.

    Args:
        config: of the run.
        device: as of `d4k.Loading`.
        memory_gb: as of `d4k.Loading`.

    Raises:
        ConfigError: the run has no cache.
        D4KError: as `fill_cache`.
    """
    check_launch(config)
    if cache_folder(config) is None:
        raise ConfigError(
            "this run has no cache to fill: data.cache is 'off', or each epoch cuts its pictures elsewhere; name a "
            "folder with data.cache, and with random cuts set data.crops to how many of each picture are kept"
        )
    place = choose_device(device)
    with joined(config, place):
        processes = Processes()
        with processes.together():
            dataset = create("dataset", config.dataset.name, **config.dataset.options)
            # in the dtype of the run: latents and text of another one would not be found by it
            dtype = training_dtype(config.training.precision, adapter=config.adapter is not None)
            ref = ModelRef(config.model, config.revision, config.variant, config.transformer, options=config.backbone)
            backbone, _ = load_model(ref, Loading(device=str(place), dtype=dtype, memory_gb=memory_gb))
            chosen = choose_pictures(dataset, backbone, config)
        filled = fill_cache(backbone, chosen, config, processes)
        assert filled is not None  # it has a folder
        return filled
