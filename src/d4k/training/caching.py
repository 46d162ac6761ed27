"""The cache of a run, filled before its first step."""

from __future__ import annotations

from d4k.config import RunConfig
from d4k.processes import Processes
from d4k.protocols import Backbone
from d4k.training.data.cache import CacheSettings, Filled, fill
from d4k.training.data.pictures import Chosen
from d4k.training.data.views import cache_folder, captions, views

__all__ = ["fill_cache"]


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
