"""What is damaged is found, taken out, and encoded again; what is sound stays."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from cache_cases import SIDE, Model, fill_folder

from d4k import DataError, OutputError
from d4k.images import Crop
from d4k.store import FileFacts, Group, ShardRow
from d4k.training.data.cache import fill, open_cache
from d4k.training.data.cache.originals import Originals
from d4k.training.data.cache.upkeep import repair, stats, verify
from d4k.training.data.source import View


@pytest.fixture
def cache(photos: Path, tmp_path: Path) -> Path:
    fill_folder(Model(), photos, tmp_path / "cache")
    return tmp_path / "cache"


def damage(cache: Path, kind: str = "latent") -> Path:
    """Change the last byte of a shard, which is one of the last entry's values."""
    (path,) = (cache / "shards").glob(f"{kind}-*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return path


def test_a_sound_cache_is_verified_and_repaired_without_a_change(cache: Path) -> None:
    before = {path.name: path.read_bytes() for path in (cache / "shards").iterdir()}
    assert verify(cache) == (11, [])
    assert repair(cache) == (11, [])
    assert {path.name: path.read_bytes() for path in (cache / "shards").iterdir()} == before


def test_one_changed_byte_costs_one_entry(cache: Path, photos: Path) -> None:
    damage(cache)
    sound, (found,) = verify(cache)
    assert (sound, len(found.entries), found.whole) == (10, 1, False)
    assert verify(cache)[0] == 10  # looking changes nothing
    remaining, (sentence,) = repair(cache)
    assert remaining == 10
    assert sentence.startswith("1 entry taken out of shard latent-")
    assert verify(cache) == (10, [])
    filled = fill_folder(Model(), photos, cache)
    assert (filled.encoded, filled.texts_encoded) == (1, 0)
    for index in range(5):
        filled.source.load(View(index, Crop(SIDE, SIDE)))


def test_a_shard_that_is_no_longer_one_goes_with_all_of_its_entries(cache: Path, photos: Path) -> None:
    path = damage(cache)
    path.write_bytes(b"\xff" * path.stat().st_size)
    sound, (found,) = verify(cache)
    assert (sound, len(found.entries), found.whole) == (6, 5, True)
    assert repair(cache)[0] == 6
    assert not path.exists()
    assert fill_folder(Model(), photos, cache).encoded == 5


def test_an_index_that_is_no_database_is_made_again_from_the_shards(cache: Path, photos: Path) -> None:
    (cache / "index.sqlite").write_bytes(b"not a database" * 100)
    remaining, done = repair(cache)
    assert remaining == 11
    assert "made again" in done[0]
    filled = fill_folder(Model(), photos, cache)
    assert (filled.encoded, filled.texts_encoded) == (0, 0)


def test_a_damaged_entry_does_not_come_back_with_a_new_index(cache: Path) -> None:
    damage(cache)
    (cache / "index.sqlite").unlink()
    assert repair(cache)[0] == 10
    assert verify(cache) == (10, [])


def test_a_cache_of_another_format_is_refused(cache: Path) -> None:
    with sqlite3.connect(cache / "index.sqlite") as rows:
        rows.execute("UPDATE meta SET value = 99")
    rows.close()
    with pytest.raises(DataError, match="has format 99, and this d4k knows 1"):
        open_cache(cache)


def test_figures_are_those_of_what_is_stored(cache: Path, photos: Path) -> None:
    fill_folder(Model(), photos, cache, dtype="float32")
    parts = {(part.group.kind, part.group.dtype): part for part in stats(cache)}
    assert {name: part.entries for name, part in parts.items()} == {
        (kind, dtype): count for kind, count in (("latent", 5), ("text", 6)) for dtype in ("bfloat16", "float32")
    }
    size = sum(path.stat().st_size for path in (cache / "shards").iterdir())
    assert sum(part.bytes for part in parts.values()) == size


@pytest.mark.parametrize("look", [stats, verify, repair])
def test_a_folder_that_is_no_cache_is_refused_and_left_alone(photos: Path, look) -> None:  # type: ignore[no-untyped-def]
    before = sorted(photos.iterdir())
    with pytest.raises(DataError, match="is no cache of d4k"):
        look(photos)
    assert sorted(photos.iterdir()) == before


def test_a_folder_that_cannot_be_made_is_an_error_of_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make cache"):
        open_cache(tmp_path / "file" / "cache")


def test_a_writer_that_is_left_by_an_error_keeps_what_it_had(tmp_path: Path) -> None:
    store = open_cache(tmp_path)
    writer = store.writer(Group("latent", "model", "float32"))
    writer.add("ab" * 16, {"mean": torch.ones(2, 2)})
    assert store.missing(["ab" * 16])
    writer.__exit__(ValueError, ValueError("stop"), None)
    assert torch.equal(store.read("ab" * 16, "it")["mean"], torch.ones(2, 2))


def test_a_file_that_was_not_touched_is_not_read_again(photos: Path, tmp_path: Path) -> None:
    """Its digest comes from the index, unless it had just been changed when it was read."""
    from d4k.datasets import FolderDataset

    store, sample = open_cache(tmp_path / "cache"), FolderDataset(photos)[0]
    assert isinstance(sample.source, Path)
    found = sample.source.stat()
    stat = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
    store.index.remember([(str(sample.source.absolute()), stat, FileFacts("known", 3, 4))])
    assert Originals(store.index).facts(sample) == FileFacts("known", 3, 4)
    sample.source.touch()
    facts = Originals(store.index).facts(sample)
    assert facts.digest != "known"
    assert (facts.width, facts.height) == (24, 20)


def test_a_file_that_has_just_been_changed_is_read_again_next_time(photos: Path, tmp_path: Path) -> None:
    from d4k.datasets import FolderDataset

    store, sample = open_cache(tmp_path / "cache"), FolderDataset(photos)[0]
    originals = Originals(store.index)
    originals.facts(sample)
    originals.flush()
    with sqlite3.connect(store.folder / "index.sqlite") as rows:
        assert rows.execute("SELECT count(*) FROM files").fetchone() == (0,)
    rows.close()


def test_one_view_asked_for_twice_is_encoded_once(photos: Path, tmp_path: Path) -> None:
    from d4k.datasets import FolderDataset

    view = View(0, Crop(SIDE, SIDE))
    filled = fill(Model(), FolderDataset(photos), [view, view], ["a", "a"], tmp_path / "cache")
    assert (filled.encoded, filled.latents, filled.texts_encoded) == (1, 2, 1)


def test_an_index_on_a_full_disk_says_so_and_stays_whole(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has taken the change back by itself."""
    connect = sqlite3.connect

    def small(*given: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*given, **options)
        connection.execute("PRAGMA max_page_count = 10")
        return connection

    monkeypatch.setattr(sqlite3, "connect", small)
    index = open_cache(cache).index
    shard = ShardRow("latent-new", 1, Group("latent", "model", "bfloat16"))
    with pytest.raises(OutputError, match="database or disk is full"):
        index.add(shard, [f"{number:032x}" for number in range(10_000)])
    assert len(index.shards()) == 2
    assert index.add(shard, [f"{1:032x}"])
    index.drop_shard(shard.name)
    assert verify(cache) == (11, [])


def test_what_opening_mends_is_said(cache: Path) -> None:
    """Whoever looks first takes out a shard that was cut short, so that it is for them to say so."""
    (path,) = (cache / "shards").glob("latent-*")
    path.write_bytes(path.read_bytes()[:100])
    sound, (damage,) = verify(cache)
    assert damage.why.endswith("1 shard is missing or cut short; its entries (5) are encoded again when needed")
    assert (sound, damage.shard) == (6, "")
    assert verify(cache) == (6, [])


def test_a_table_of_what_is_there_warns_of_what_was_lost(cache: Path) -> None:
    (path,) = (cache / "shards").glob("latent-*")
    path.unlink()
    with pytest.warns(UserWarning, match="1 shard is missing or cut short"):
        stats(cache)
