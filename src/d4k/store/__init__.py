"""Tensors by key in a folder: content-addressed, append-only, checked when read, written by several processes."""

from d4k.store.codec import narrow
from d4k.store.index import FILE as INDEX
from d4k.store.index import FileFacts, Index, ShardRow
from d4k.store.joining import compact
from d4k.store.keys import BYTES, FORMAT, Group, digest
from d4k.store.store import SHARDS, Store, Writer
from d4k.store.words import Words

__all__ = [
    "BYTES",
    "FORMAT",
    "INDEX",
    "SHARDS",
    "FileFacts",
    "Group",
    "Index",
    "ShardRow",
    "Store",
    "Words",
    "Writer",
    "compact",
    "digest",
    "narrow",
]
