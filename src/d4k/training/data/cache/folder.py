"""The cache of a folder: a `d4k.store.Store` whose messages say how a cache is filled and mended."""

from __future__ import annotations

from pathlib import Path

from d4k.store import Store, Words

__all__ = ["CACHE", "open_cache"]

CACHE = Words(
    noun="cache",
    elsewhere="name another folder with data.cache",
    absent="fill it with: d4k cache RUN.toml",
    damaged="Take it out with 'd4k cache repair {folder}'; it is encoded again when it is next needed",
    broken="mend it with: d4k cache repair {folder}",
    again="are encoded again when needed",
)


def open_cache(folder: Path) -> Store:
    """The cache in a folder, which is made where it is missing.

    Raises:
        DataError: the index is damaged, or of another version of d4k.
        OutputError: the folder cannot be written.
    """
    return Store(folder, CACHE)
