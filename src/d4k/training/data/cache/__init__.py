"""The cache of latents and text: content-addressed, append-only, checked when it is read."""

from d4k.training.data.cache.fill import CacheSettings, Filled, fill
from d4k.training.data.cache.keys import Group, Keys, make_keys
from d4k.training.data.cache.source import CachedSource
from d4k.training.data.cache.store import Store

__all__ = ["CacheSettings", "CachedSource", "Filled", "Group", "Keys", "Store", "fill", "make_keys"]
