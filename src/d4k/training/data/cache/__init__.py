"""The cache of latents and text: what a run needs, encoded once and kept in a `d4k.store`."""

from d4k.training.data.cache.fill import CacheSettings, Filled, fill
from d4k.training.data.cache.folder import open_cache
from d4k.training.data.cache.keys import Keys, make_keys
from d4k.training.data.cache.source import CachedSource

__all__ = ["CacheSettings", "CachedSource", "Filled", "Keys", "fill", "make_keys", "open_cache"]
