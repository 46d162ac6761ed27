"""The index of a store: which shard holds an entry, and what the files of pictures held when they were last looked at.

One SQLite file without a write-ahead log, so that it works on network file systems, too. Every change is one
transaction: a process that is killed has made all of it, or nothing. All of it can be made again from the shards.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from d4k.errors import DataError, OutputError
from d4k.store.keys import FORMAT, Group
from d4k.store.words import Words

__all__ = ["FILE", "FileFacts", "Index", "ShardRow"]

FILE = "index.sqlite"
PATIENCE = 120.0
"""Seconds to wait for another process that writes."""
MANY = 500
"""Keys asked for at once; SQLite allows 32,766."""
INHERITED: list[sqlite3.Connection] = []
"""What a process had open before it was forked; SQLite forbids to close it in the new one."""

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL,
    kind TEXT NOT NULL, model TEXT NOT NULL, dtype TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, shard INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_of_shards ON entries (shard);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, stat TEXT NOT NULL, digest TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL
) WITHOUT ROWID;
"""


@frozen
class ShardRow:
    """A shard as the index knows it.

    Args:
        name: of its file.
        bytes: size of the file.
        group: of its entries.
    """

    name: str
    bytes: int
    group: Group


@frozen
class FileFacts:
    """What the file of a picture held.

    Args:
        digest: of its bytes.
        width: of the picture in pixels, upright.
        height: likewise.
    """

    digest: str
    width: int
    height: int


class Index:
    """The index of the store in a folder; made where there is none.

    It may be used by several threads, and after a fork: a process opens a connection of its own.

    Args:
        folder: of the store.
        words: what messages say of it.

    Raises:
        DataError: the file is damaged, or of another version of d4k.
    """

    def __init__(self, folder: Path, words: Words | None = None) -> None:
        self.folder, self.words = folder, words or Words()
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        with self._transaction() as rows:
            for statement in TABLES.split(";"):
                rows.execute(statement)
            rows.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
            [(found,)] = rows.execute("SELECT value FROM meta WHERE name = 'format'")
        if found != FORMAT:
            raise DataError(
                f"{self.words.noun} {folder} has format {found}, and this d4k knows {FORMAT}: {self.words.elsewhere}",
                folder,
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "words": self.words}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder, self.words = state["folder"], state["words"]
        self._lock, self._connection, self._process = threading.RLock(), None, 0

    def close(self) -> None:
        """Close the file; it is opened again when it is next needed."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
                self._connection = None

    def __del__(self) -> None:
        self.close()  # newer releases of Python warn of a connection that nobody closed

    def shard_of(self, key: str) -> str | None:
        """The name of the shard that holds an entry; None where there is no such entry."""
        rows = self._rows("SELECT name FROM entries JOIN shards ON id = shard WHERE key = ?", (bytes.fromhex(key),))
        return rows[0][0] if rows else None

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that have no entry, each once, in the order given."""
        wanted, found = list(dict.fromkeys(keys)), set[str]()
        for first in range(0, len(wanted), MANY):
            part = [bytes.fromhex(key) for key in wanted[first : first + MANY]]
            marks = ",".join("?" * len(part))
            found.update(row[0].hex() for row in self._rows(f"SELECT key FROM entries WHERE key IN ({marks})", part))
        return [key for key in wanted if key not in found]

    def shards(self) -> list[ShardRow]:
        """All shards, by name."""
        rows = self._rows("SELECT name, bytes, kind, model, dtype FROM shards ORDER BY name")
        return [ShardRow(name, size, Group(*group)) for name, size, *group in rows]

    def entries_of(self, name: str) -> list[str]:
        """The keys that are read from a shard; it may hold more, which another shard was first to bring."""
        rows = self._rows("SELECT key FROM entries JOIN shards ON id = shard WHERE name = ? ORDER BY key", (name,))
        return [row[0].hex() for row in rows]

    def add(self, shard: ShardRow, keys: Sequence[str]) -> bool:
        """Enter a shard; an entry that another shard brought before stays with that.

        Returns:
            Whether entries are read from this shard. Where none is, the index does not know it.
        """
        with self._transaction() as rows:
            known = rows.execute("SELECT id FROM shards WHERE name = ?", (shard.name,)).fetchone()
            if known is not None:  # another process found the file before the one that wrote it came to this
                return True
            number = _insert(rows, shard)
            pairs = [(bytes.fromhex(key), number) for key in keys]
            used = rows.executemany("INSERT OR IGNORE INTO entries VALUES (?, ?)", pairs).rowcount > 0
            if not used:
                rows.execute("DELETE FROM shards WHERE id = ?", (number,))
        return used

    def replace(self, names: Sequence[str], write: Callable[[], ShardRow]) -> bool:
        """Let the entries of some shards be read from a new one, and forget those.

        No other process can enter anything meanwhile, so that none takes the new file for one that brings nothing.

        Args:
            names: of the shards that are replaced.
            write: writes the file of the new shard, which holds all of their entries.

        Returns:
            Whether it was done; it is not where another process was as quick.
        """
        with self._transaction() as rows:
            found = [rows.execute("SELECT id FROM shards WHERE name = ?", (name,)).fetchone() for name in names]
            if None in found:
                return False
            shard = write()
            number = _insert(rows, shard)
            for (old,) in found:
                rows.execute("UPDATE entries SET shard = ? WHERE shard = ?", (number, old))
                rows.execute("DELETE FROM shards WHERE id = ?", (old,))
        return True

    def drop_shard(self, name: str) -> int:
        """Forget a shard and its entries; returns how many those were."""
        with self._transaction() as rows:
            query = "DELETE FROM entries WHERE shard = (SELECT id FROM shards WHERE name = ?)"
            count = rows.execute(query, (name,)).rowcount
            rows.execute("DELETE FROM shards WHERE name = ?", (name,))
        return int(count)

    def drop(self, keys: Iterable[str]) -> None:
        """Forget entries."""
        with self._transaction() as rows:
            rows.executemany("DELETE FROM entries WHERE key = ?", [(bytes.fromhex(key),) for key in keys])

    def counts(self) -> list[tuple[Group, int, int, int]]:
        """Of each group: the number of its entries, of its shards, and their bytes."""
        rows = self._rows(
            "SELECT kind, model, dtype, sum(entries), count(*), sum(bytes) FROM shards LEFT JOIN "
            "(SELECT shard, count(*) AS entries FROM entries GROUP BY shard) ON shard = id "
            "GROUP BY kind, model, dtype ORDER BY kind, model, dtype"
        )
        return [(Group(kind, model, dtype), int(n or 0), shards, size) for kind, model, dtype, n, shards, size in rows]

    def file(self, path: str, stat: str) -> FileFacts | None:
        """What a file held when its `stat` was the same; None where it was another, or was never looked at."""
        rows = self._rows("SELECT digest, width, height FROM files WHERE path = ? AND stat = ?", (path, stat))
        return FileFacts(*rows[0]) if rows else None

    def remember(self, files: Iterable[tuple[str, str, FileFacts]]) -> None:
        """Keep what files held, each with its path and its `stat` at that time."""
        with self._transaction() as rows:
            values = [(path, stat, facts.digest, facts.width, facts.height) for path, stat, facts in files]
            rows.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", values)

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, self._errors():
            return self._open().execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, self._errors(), closing(self._open().cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if cursor.connection.in_transaction:  # a full disk has ended it already
                    cursor.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        """The connection of this process; one that was open before a fork belongs to the other, and is left alone."""
        if self._connection is None or self._process != os.getpid():
            INHERITED.extend([] if self._connection is None else [self._connection])
            self._connection = sqlite3.connect(
                self.folder / FILE, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._process = os.getpid()
        return self._connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"cannot use the index of {self.words.noun} {self.folder}: {error}; mend that, or "
                f"{self.words.elsewhere}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"the index of {self.words.noun} {self.folder} is damaged ({error}); "
                f"{self.words.broken.format(folder=self.folder)}",
                self.folder / FILE,
            ) from error


def _insert(rows: sqlite3.Cursor, shard: ShardRow) -> int | None:
    """Enter a shard without its entries; returns its number."""
    group = shard.group
    return rows.execute(
        "INSERT INTO shards (name, bytes, kind, model, dtype) VALUES (?, ?, ?, ?, ?)",
        (shard.name, shard.bytes, group.kind, group.model, group.dtype),
    ).lastrowid
