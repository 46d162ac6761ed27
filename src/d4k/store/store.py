"""The store of one folder: entries by key, written in shards, found through the index.

    FOLDER/
      index.sqlite           which shard holds an entry
      shards/*.safetensors   the entries

Nothing that is written is ever changed. A shard appears whole, and is then entered into the index; a process that is
killed in between leaves a shard that the next one enters. So whoever opens the store finds every entry whole or not at
all, and several processes may fill it at once.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from d4k.errors import DataError, OutputError
from d4k.files import sweep
from d4k.store.index import Index, ShardRow
from d4k.store.keys import Group
from d4k.store.shards import ENDING, Packed, Shard, pack_entry, write_shard
from d4k.store.words import Words

__all__ = ["FLUSH_BYTES", "SHARDS", "Store", "Writer", "new_name"]

SHARDS = "shards"
"""Folder of the shards in that of the store."""

OPEN = 32
"""Shards that are held open."""

FLUSH_BYTES = 2**26
FLUSH_SECONDS = 20.0
"""A shard is written when it holds so many bytes, or has waited so long: what a kill may cost."""


class Store:
    """The store in a folder, which is made where it is missing.

    Args:
        folder: of the store.
        words: what messages say of it.

    Attributes:
        index: which shard holds an entry.
        notes: a sentence for each thing that was mended on opening.

    Raises:
        DataError: the index is damaged, or of another version of d4k.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, words: Words | None = None) -> None:
        self.folder, self.words = folder, words or Words()
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make {self.words.noun} {folder}: {error.strerror or error}; {self.words.elsewhere}"
            ) from error
        self.index = Index(folder, self.words)
        self._opened: OrderedDict[str, Shard] = OrderedDict()
        self._lock = threading.Lock()
        self.notes = self._mend()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "words": self.words, "index": self.index}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder, self.words, self.index, self.notes = state["folder"], state["words"], state["index"], []
        self._opened, self._lock = OrderedDict(), threading.Lock()

    @property
    def shards(self) -> Path:
        """The folder of the shards."""
        return self.folder / SHARDS

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that have no entry, each once, in the order given."""
        return self.index.missing(keys)

    def read(self, key: str, what: str) -> dict[str, Tensor]:
        """The tensors of an entry, checked against its checksum.

        Args:
            key: of the entry.
            what: that it is of, for messages: such as "picture 'a.jpg'".

        Raises:
            DataError: there is no such entry, or it is not as it was written.
        """
        name = self.index.shard_of(key)
        if name is None:
            raise DataError(f"{what} is not in {self.words.noun} {self.folder}; {self.words.absent}", self.folder)
        try:
            return self.open_shard(name).read(key)
        except DataError as error:
            if self.index.shard_of(key) != name:  # it was compacted meanwhile
                return self.read(key, what)
            raise DataError(
                f"the entry of {what} in {self.words.noun} {self.folder} is damaged: {error}. "
                f"{self.words.damaged.format(folder=self.folder)}",
                error.path,
            ) from error

    def open_shard(self, name: str) -> Shard:
        """A shard by name; the newest are held open.

        Raises:
            DataError: it cannot be read.
        """
        with self._lock:
            if name not in self._opened:
                self._opened[name] = Shard(self.shards / f"{name}{ENDING}")
            self._opened.move_to_end(name)
            while len(self._opened) > OPEN:
                self._opened.popitem(last=False)
            return self._opened[name]

    def forget_shard(self, name: str) -> int:
        """Remove a shard and its entries; returns how many those were."""
        with self._lock:
            self._opened.pop(name, None)
        count = self.index.drop_shard(name)
        (self.shards / f"{name}{ENDING}").unlink(missing_ok=True)
        return count

    def writer(self, group: Group) -> Writer:
        """A place for new entries of a group; use it as a context, which writes the last of them when it ends."""
        return Writer(self, group)

    def enter(self, name: str) -> bool:
        """Enter a shard that lies in the folder into the index; one that brings nothing new is removed.

        Returns:
            Whether entries are read from it.

        Raises:
            DataError: it is missing, cut short, or no shard.
        """
        path = self.shards / f"{name}{ENDING}"
        shard = Shard(path)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return False
        used = self.index.add(ShardRow(name, size, shard.group), shard.keys)
        if not used:
            path.unlink(missing_ok=True)
        return used

    def _mend(self) -> list[str]:
        """Take in shards that a killed process did not enter, and drop those that are gone or cut short."""
        sweep(self.shards)
        rows = {row.name: row.bytes for row in self.index.shards()}
        sizes = self._sizes()
        lost = [name for name, size in rows.items() if sizes.get(name) != size]
        if lost:  # or compacted meanwhile
            known = {row.name for row in self.index.shards()}
            lost = [name for name in lost if name in known]
        count = sum(self.forget_shard(name) for name in lost)
        notes = []
        if lost:
            many = f"{_many(len(lost), 'shard')} missing or cut short"
            notes.append(f"of {self.words.noun} {self.folder}, {many}; its entries ({count}) {self.words.again}")
        strangers = [name for name in sizes if name not in rows]
        unread = [name for name in strangers if not self._take_in(name)]
        if unread:
            notes.append(
                f"{len(unread)} removed from {self.words.noun} {self.folder}, since they cannot be read: {unread[0]}"
            )
        return notes

    def _take_in(self, name: str) -> bool:
        try:
            self.enter(name)
        except DataError:
            path = self.shards / f"{name}{ENDING}"
            gone = not path.exists()  # another process was as quick
            path.unlink(missing_ok=True)
            return gone
        return True

    def _sizes(self) -> dict[str, int]:
        """The shards in the folder, and the bytes of each."""
        with os.scandir(self.shards) as found:
            return {one.name.removesuffix(ENDING): one.stat().st_size for one in found if one.name.endswith(ENDING)}


class Writer:
    """Collects entries of one group, and writes them when there are enough of them; see `Store.writer`.

    Args:
        store: to write into.
        group: of the entries.

    Attributes:
        entries: written so far.
        bytes: of their values.
    """

    def __init__(self, store: Store, group: Group) -> None:
        self.store, self.group = store, group
        self.dtype: torch.dtype = getattr(torch, group.dtype)
        self.entries = self.bytes = 0
        self._waiting: dict[str, Packed] = {}
        self._since = 0.0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        except OutputError:
            if error is None:
                raise

    def add(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Add an entry.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting[key] = pack_entry(key, tensors, self.dtype)
        size = sum(one.bytes for one in self._waiting.values())
        if size >= FLUSH_BYTES or time.monotonic() - self._since >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added so far.

        Raises:
            OutputError: as `add`.
        """
        fresh = {key: self._waiting[key] for key in self.store.missing(self._waiting)}
        if fresh:
            name = new_name(self.group)
            path = self.store.shards / f"{name}{ENDING}"
            size = write_shard(path, self.group, fresh)
            if not self.store.index.add(ShardRow(name, size, self.group), list(fresh)):
                path.unlink(missing_ok=True)
            self.entries += len(fresh)
            self.bytes += sum(one.bytes for one in fresh.values())
        self._waiting.clear()


def new_name(group: Group) -> str:
    """The name of a shard that no other has; names sort by time."""
    return f"{group.kind}-{time.time_ns():020d}-{secrets.token_hex(4)}"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{' is' if count == 1 else 's are'}"
