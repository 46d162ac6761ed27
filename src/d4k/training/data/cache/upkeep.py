"""Looking after a cache: what is in it, whether it is whole, and taking out what is not."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from attrs import frozen
from tqdm.auto import tqdm

from d4k.errors import DataError, OutputError
from d4k.files import is_folder
from d4k.store import INDEX, SHARDS, Group, Store
from d4k.training.data.cache.folder import open_cache

__all__ = ["Damage", "Part", "repair", "stats", "verify"]


@frozen
class Damage:
    """What is wrong with a cache.

    Args:
        shard: name of the shard.
        entries: keys of the entries that cannot be used.
        why: in a sentence.
        whole: whether all of the shard cannot be read.
    """

    shard: str
    entries: tuple[str, ...]
    why: str
    whole: bool = False


@frozen
class Part:
    """Entries of one group.

    Args:
        group: what they have in common.
        entries: how many there are.
        shards: files that hold them.
        bytes: of those files.
    """

    group: Group
    entries: int
    shards: int
    bytes: int


def stats(folder: Path) -> list[Part]:
    """What a cache holds, by kind, model and dtype; warns of what opening mends.

    Raises:
        DataError: there is no cache in the folder, or its index is damaged.
    """
    _require(folder)
    store = open_cache(folder)
    for note in store.notes:
        warnings.warn(note, stacklevel=2)
    return [Part(*row) for row in store.index.counts()]


def verify(folder: Path) -> tuple[int, list[Damage]]:
    """Read every entry of a cache, and compare it with its checksum; changes nothing but what opening mends.

    Args:
        folder: of the cache.

    Returns:
        The number of entries that are as they were written, and what is not; what opening took out comes first, under
        no name of a shard.

    Raises:
        DataError: there is no cache in the folder, or its index is damaged.
    """
    _require(folder)
    store = open_cache(folder)
    sound, damages = 0, [Damage("", (), note) for note in store.notes]
    for name in _bar([row.name for row in store.index.shards()], "verifying"):
        count, damage = _verify_shard(store, name)
        sound += count
        damages += [] if damage is None else [damage]
    return sound, damages


def repair(folder: Path) -> tuple[int, list[str]]:
    """Take out of a cache what is not as it was written; it is encoded again when it is next needed.

    An index that is damaged is made again from the shards.

    Args:
        folder: of the cache.

    Returns:
        The number of entries that remain, and a sentence for each thing that was done.

    Raises:
        DataError: there is no cache in the folder.
        OutputError: it cannot be written.
    """
    _require(folder)
    done = []
    if not _is_sound(folder / INDEX):
        for name in (INDEX, f"{INDEX}-journal"):
            _remove(folder / name)
        done.append("the index was damaged, and is made again from the shards")
    store = open_cache(folder)
    done += store.notes
    sound, damages = verify(folder)
    for damage in damages:
        if damage.whole:
            store.forget_shard(damage.shard)
        else:
            store.index.drop(damage.entries)
            if not store.index.entries_of(damage.shard):
                store.forget_shard(damage.shard)
        count = len(damage.entries)
        done.append(f"{count} entr{'y' if count == 1 else 'ies'} taken out of shard {damage.shard}: {damage.why}")
    return sound, done


def _verify_shard(store: Store, name: str) -> tuple[int, Damage | None]:
    """How many entries of a shard can be used, and what is wrong with the others."""
    keys = store.index.entries_of(name)
    try:
        shard = store.open_shard(name)
    except DataError as error:
        return 0, Damage(name, tuple(keys), str(error), whole=True)
    faults = {}
    for key in keys:
        try:
            shard.read(key)
        except DataError as error:
            faults[key] = str(error)
    damage = Damage(name, tuple(faults), next(iter(faults.values()))) if faults else None
    return len(keys) - len(faults), damage


def _require(folder: Path) -> None:
    """Refuse a folder that is no cache, before one is made in it."""
    if not is_folder(folder / SHARDS, DataError):
        raise DataError(f"{folder} is no cache of d4k: it has no folder {SHARDS}; name the folder of a cache", folder)


def _is_sound(path: Path) -> bool:
    """Whether an index can be read from beginning to end."""
    if not path.exists():
        return True
    try:
        with closing(sqlite3.connect(path)) as rows:
            return bool(rows.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error


def _bar(names: list[str], words: str) -> Iterator[str]:
    shown: Iterator[str] = iter(tqdm(names, desc=words, unit="shard", delay=0.5))
    return shown
