"""Fifty kills of a process that fills a cache; the tests of every day kill four (tests/training)."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import sys
from pathlib import Path

import cache_cases
import pytest
import torch
from cache_cases import SIDE, Model, fill_folder, picture_folder

from d4k.images import Crop
from d4k.seeds import numbered_seed
from d4k.training.data.source import View

KILLS = int(os.environ.get("D4K_KILLS", "50"))
COUNT, EACH = 40, 5


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither forkserver nor SIGKILL")
def test_a_cache_that_was_killed_again_and_again_holds_everything_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five kills a cache, each while what the former ones left is filled up; then all entries bit by bit."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cache_cases"])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(cache_cases.__file__).parent), *sys.path]))
    photos = picture_folder(tmp_path / "photos", COUNT)
    reference = fill_folder(Model(), photos, tmp_path / "reference").source
    for number in range(KILLS // EACH):
        cache, kept = tmp_path / f"cache-{number}", []
        for kill in range(EACH):
            moment = 1 + numbered_seed(number, "kill", kill) % COUNT
            cache_cases.fill_and_kill(context, photos, cache, moment)
            kept.append(_entries(cache))
        assert kept == sorted(kept), "an entry was lost"
        filled = fill_folder(Model(), photos, cache)
        print(
            f"cache {number}: entries after each kill {kept}; encoded at last {filled.encoded}+{filled.texts_encoded}"
        )
        for index in range(COUNT):
            found, wanted = (source.load(View(index, Crop(SIDE, SIDE))) for source in (filled.source, reference))
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
            found, wanted = (source.text(f"picture {index}").tensors for source in (filled.source, reference))
            assert torch.equal(found["text"], wanted["text"])
        assert _entries(cache) == 2 * COUNT + 1
        assert not [path for path in (cache / "shards").iterdir() if path.suffix != ".safetensors"]


def _entries(cache: Path) -> int:
    """Entries that the index has; a shard that it does not have yet is not counted."""
    if not (cache / "index.sqlite").exists():
        return 0
    with sqlite3.connect(cache / "index.sqlite") as rows:
        tables = rows.execute("SELECT count(*) FROM sqlite_master WHERE name = 'entries'").fetchone()[0]
        return int(rows.execute("SELECT count(*) FROM entries").fetchone()[0]) if tables else 0
