"""Many small shards into few large ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from d4k.errors import DataError
from d4k.store.index import ShardRow
from d4k.store.shards import ENDING, write_shard
from d4k.store.store import FLUSH_BYTES, Store, new_name

__all__ = ["compact"]

ENTRIES = 20_000
"""Of a shard: its header, which names each, is read whole."""


def compact(store: Store) -> int:
    """Join small shards of each group, so that whoever wrote every entry at once leaves few files.

    Other processes may read and write meanwhile. A shard that cannot be read is left as it is.

    Args:
        store: whose shards are joined.

    Returns:
        The number of files that there are less.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
    """
    return sum(_join(store, shards) for shards in _small(store))


def _small(store: Store) -> Iterator[list[ShardRow]]:
    """Shards of one group each that together make a large one."""
    together: list[ShardRow] = []
    entries = 0
    for shard in sorted(store.index.shards(), key=lambda one: (repr(one.group), one.name)):
        count = len(store.index.entries_of(shard.name))
        if shard.bytes > FLUSH_BYTES / 2 or count > ENTRIES / 2:
            continue
        size = sum(one.bytes for one in together) + shard.bytes
        if together and (together[0].group != shard.group or size > FLUSH_BYTES or entries + count > ENTRIES):
            yield together
            together, entries = [], 0
        together.append(shard)
        entries += count
    yield together


def _join(store: Store, shards: Sequence[ShardRow]) -> int:
    """Write the entries of some shards into one; returns how many files there are less."""
    if len(shards) < 2:
        return 0
    names, group = [shard.name for shard in shards], shards[0].group
    try:
        packed = {key: store.open_shard(name).packed(key) for name in names for key in store.index.entries_of(name)}
    except DataError:  # damaged, or joined by another process
        return 0
    joined = new_name(group)

    def write() -> ShardRow:
        return ShardRow(joined, write_shard(store.shards / f"{joined}{ENDING}", group, packed), group)

    if not store.index.replace(names, write):
        return 0
    for name in names:
        store.forget_shard(name)
    return len(names) - 1
