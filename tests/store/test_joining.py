"""Small shards become few, while others read and write, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d4k.errors import DataError
from d4k.store import Group, Store, Words, compact, digest, store

GROUP, OTHER = Group("rows", "a", "float64"), Group("rows", "b", "float32")


def filled(folder: Path, count: int = 6) -> Store:
    """A shard for each of some entries, of two groups."""
    made = Store(folder)
    for number in range(count):
        with made.writer(GROUP if number % 2 else OTHER) as writer:
            writer.add(digest(number), {"row": torch.full((2, 3), number, dtype=torch.float64)})
    return made


def check(made: Store, count: int = 6) -> None:
    for number in range(count):
        row = made.read(digest(number), "it")["row"]
        assert torch.equal(row, torch.full((2, 3), number, dtype=torch.float64))


def files(made: Store) -> set[str]:
    return {path.stem for path in made.shards.iterdir()}


def test_small_shards_become_one_for_each_group(tmp_path: Path) -> None:
    made = filled(tmp_path)
    assert len(files(made)) == 6
    assert compact(made) == 4
    assert len(files(made)) == 2
    assert files(made) == {row.name for row in made.index.shards()}
    check(made)
    again = Store(tmp_path)
    assert again.notes == []
    check(again)
    assert compact(again) == 0


def test_whoever_has_a_store_open_reads_on(tmp_path: Path) -> None:
    """Also an entry whose shard it has not opened yet."""
    made = filled(tmp_path)
    other = Store(tmp_path)
    other.read(digest(0), "it")
    compact(made)
    check(other)


def test_two_that_join_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes after the first has done it, with the list of before."""
    made, other = filled(tmp_path), Store(tmp_path)
    listed = made.index.shards()
    compact(other)
    monkeypatch.setattr(made.index, "shards", lambda: listed)
    monkeypatch.setattr(made.index, "entries_of", lambda name: [])
    assert compact(made) == 0
    monkeypatch.undo()
    check(Store(tmp_path))


def killed(*inputs: object) -> None:
    raise KeyboardInterrupt


def test_one_that_is_killed_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before its shard is entered, nor before the old ones are removed."""
    made = filled(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("d4k.store.index._insert", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(made)
    assert len(files(made)) == 7
    check(again := Store(tmp_path))
    assert len(files(again)) == 6
    with monkeypatch.context() as patch:
        patch.setattr(Store, "forget_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(again)
    assert len(files(again)) > 4
    check(last := Store(tmp_path))
    assert files(last) == {row.name for row in last.index.shards()}


def test_a_store_that_is_opened_meanwhile_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new shard is entered before anybody else may look whether it brings anything."""
    made, write = filled(tmp_path), store.write_shard

    def looked_at(path: Path, *inputs: object) -> int:
        size = write(path, *inputs)  # type: ignore[arg-type]
        with pytest.raises(Exception, match="database is locked"):
            Store(tmp_path)
        return size

    monkeypatch.setattr("d4k.store.index.PATIENCE", 0.0)
    monkeypatch.setattr("d4k.store.joining.write_shard", looked_at)
    compact(made)
    check(made)


def test_large_shards_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d4k.store.joining.FLUSH_BYTES", 100)
    assert compact(filled(tmp_path)) == 0


def test_a_damaged_shard_is_left_for_whoever_reads_it(tmp_path: Path) -> None:
    made = filled(tmp_path, 2 * 3)
    path = made.shards / f"{made.index.shard_of(digest(1))}.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert compact(Store(tmp_path)) == 2
    with pytest.raises(DataError, match="is damaged"):
        made.read(digest(1), "it")


def test_messages_say_what_the_store_is_called_and_how_it_is_mended(tmp_path: Path) -> None:
    words = Words("shelf", "take another", "look for it", "Dust {folder}", "sort {folder}", "come back")
    made = Store(tmp_path / "store", words)
    with pytest.raises(DataError, match=r"^the book is not in shelf .*/store; look for it$"):
        made.read(digest(1), "the book")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "index.sqlite").write_bytes(b"no index" * 99)
    with pytest.raises(DataError, match=r"^the index of shelf .*/broken is damaged .*; sort .*/broken$"):
        Store(tmp_path / "broken", words)
