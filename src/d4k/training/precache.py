"""Filling the cache of a run without running it."""

from __future__ import annotations

from d4k.config import RunConfig
from d4k.errors import ConfigError
from d4k.machine import choose_device
from d4k.plugins import create
from d4k.processes import Processes
from d4k.training.caching import fill_cache
from d4k.training.data.cache import Filled
from d4k.training.data.measured import Measured
from d4k.training.data.pictures import choose_pictures
from d4k.training.data.views import cache_folder
from d4k.training.fine_tune import load_run_model
from d4k.training.launch import check_launch, joined

__all__ = ["cache_from_config"]


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
            dataset = Measured(create("dataset", config.dataset.name, **config.dataset.options))
            backbone, _ = load_run_model(config, place, memory_gb)
            chosen = choose_pictures(dataset, backbone, config)
        filled = fill_cache(backbone, chosen, config, processes)
        assert filled is not None  # it has a folder
        return filled
