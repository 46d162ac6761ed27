"""Several processes fill one cache, together, apart, and when one is killed."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import sys
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

import cache_cases
import pytest
import torch
from cache_cases import SIDE, Model, fill_folder, picture_folder

from d4k.images import Crop
from d4k.seeds import numbered_seed
from d4k.training.data.cache import Filled
from d4k.training.data.source import View

COUNT = 24
KILLS = 4


@pytest.fixture(scope="module")
def processes() -> Iterator[BaseContext]:
    """Processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cache_cases"])
    with pytest.MonkeyPatch.context() as patch:  # before Python 3.13 the server has no other way to find the module
        folder = Path(cache_cases.__file__).parent
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        yield context


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return picture_folder(tmp_path / "photos", COUNT)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """The same pictures in a cache that one process filled undisturbed."""
    folder = tmp_path_factory.mktemp("reference")
    return fill_folder(Model(), picture_folder(folder / "photos", COUNT), folder / "cache", unreadable="skip")


def check_whole(filled: Filled, reference: Filled) -> None:
    """Every entry is there once, and is what it should be; nothing else is."""
    for index in range(COUNT):
        found, wanted = (one.source.load(View(index, Crop(SIDE, SIDE))) for one in (filled, reference))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        found, wanted = (one.source.text(f"picture {index}").tensors for one in (filled, reference))
        assert torch.equal(found["text"], wanted["text"])
    folder = filled.source.store.folder
    with sqlite3.connect(folder / "index.sqlite") as rows:
        assert rows.execute("SELECT count(*), count(DISTINCT key) FROM entries").fetchone() == (2 * COUNT + 1,) * 2
        names = {name for (name,) in rows.execute("SELECT name FROM shards")}
    assert {path.name for path in (folder / "shards").iterdir()} == {f"{name}.safetensors" for name in names}


@pytest.mark.parametrize("late", [False, True])
def test_two_processes_of_a_launch_share_the_work_and_double_nothing(
    processes: BaseContext, photos: Path, tmp_path: Path, reference: Filled, late: bool
) -> None:
    """Also where one of them looks at the cache when the other has written its part."""
    written = processes.Event() if late else None
    pipes = [processes.Pipe() for _ in range(2)]
    started = []
    for rank, (_, teller) in enumerate(pipes):
        inputs = (photos, tmp_path / "cache", tmp_path / "meeting", rank, teller, written)
        started.append(processes.Process(target=cache_cases.fill_together, args=inputs))  # type: ignore[attr-defined]
        started[-1].start()
        teller.close()
    said = [listener.recv() for listener, _ in pipes]
    for process in started:
        process.join()
    pictures, captions, encoded, texts, held = zip(*said, strict=True)
    assert pictures == (COUNT // 2, COUNT // 2)
    assert sorted(captions[0] + captions[1]) == sorted([*(f"picture {index}" for index in range(COUNT)), ""])
    assert (encoded, texts, held) == ((COUNT,) * 2, (COUNT + 1,) * 2, (COUNT,) * 2)
    again = fill_folder(Model(), photos, tmp_path / "cache")
    assert (again.encoded, again.texts_encoded) == (0, 0)
    check_whole(again, reference)


def test_two_processes_that_do_not_know_each_other_double_no_entry(
    processes: BaseContext, photos: Path, tmp_path: Path, reference: Filled
) -> None:
    pipes = [processes.Pipe() for _ in range(2)]
    started = []
    for _, teller in pipes:
        inputs = (photos, tmp_path / "cache", teller)
        started.append(processes.Process(target=cache_cases.fill_apart, args=inputs))  # type: ignore[attr-defined]
        started[-1].start()
        teller.close()
    for (listener, _), process in zip(pipes, started, strict=True):
        assert listener.recv()
        process.join()
        assert process.exitcode == 0
    again = fill_folder(Model(), photos, tmp_path / "cache")
    assert (again.encoded, again.texts_encoded) == (0, 0)
    check_whole(again, reference)


def test_a_cache_whose_writer_was_killed_goes_on_and_holds_everything_once(
    processes: BaseContext, photos: Path, tmp_path: Path, reference: Filled
) -> None:
    for number in range(KILLS):
        cache = tmp_path / f"cache-{number}"
        cache_cases.fill_and_kill(processes, photos, cache, 1 + numbered_seed(0, "kill", number) % (2 * COUNT))
        model = Model()
        filled = fill_folder(model, photos, cache)
        assert filled.encoded == len(model.pictures)
        check_whole(filled, reference)
