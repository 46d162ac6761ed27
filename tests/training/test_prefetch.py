"""Loading ahead changes when pictures are loaded, and nothing else."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from PIL import Image

from d4k import Sample
from d4k.autoencoder import Posterior
from d4k.datasets import FolderDataset
from d4k.errors import D4KError, DataError
from d4k.images import Crop
from d4k.training import Encoding, Feed, View, choose_pictures
from d4k.training.data import prefetch
from d4k.training.data.prefetch import _begin, load_ahead

Config = Callable[..., Any]
CPU = torch.device("cpu")
VIEWS = [View(index, Crop(4, 4), seed) for index in range(5) for seed in range(4)]


class Failing(DataError):
    """An error that a plugin could have, which cannot be pickled."""

    def __init__(self, name: str, why: Callable[[], str]) -> None:
        super().__init__(f"{name}: {why()}")


@frozen(eq=False)
class Numbers:
    """A source whose views are tensors that say which they are."""

    fails_at: int = -1
    kills_at: int = -1

    def load(self, view: View) -> dict[str, Any]:
        if view.index == self.fails_at:
            if view.seed == 0:
                raise DataError(f"picture {view.index} cannot be read; replace it", Path("some/where"), 7)
            raise Failing("picture", lambda: "odd")
        if view.index == self.kills_at:
            os.kill(os.getpid(), signal.SIGKILL)
        numbers = torch.arange(1000.0) + view.index
        return {
            "part": numbers[view.seed :][:3],
            "half": numbers[:2].to(torch.bfloat16),
            "none": torch.zeros(0),
            "one": torch.tensor(view.seed),
            "posterior": Posterior(numbers[None, :4]),
            "process": os.getpid(),
        }

    def latent(self, loaded: Any) -> Posterior:
        raise NotImplementedError

    def text(self, caption: str) -> Any:
        raise NotImplementedError


def values(loaded: dict[str, Any]) -> list[Any]:
    return [loaded[name].tolist() for name in ("part", "half", "none", "one")] + [loaded["posterior"].mean.tolist()]


@pytest.mark.parametrize(("workers", "needed"), [(1, 1), (2, 1), (3, 8)])
def test_what_workers_load_comes_in_order_and_unchanged(workers: int, needed: int) -> None:
    """Tensors of every kind, by value; from other processes."""
    plain = list(load_ahead(Numbers(), VIEWS, 0))
    ahead = list(load_ahead(Numbers(), VIEWS, workers, needed))
    assert [values(loaded) for loaded in ahead] == [values(loaded) for loaded in plain]
    assert {loaded["process"] for loaded in plain} == {os.getpid()}
    assert os.getpid() not in {loaded["process"] for loaded in ahead}
    assert [tensor.dtype for tensor in ahead[0].values() if isinstance(tensor, torch.Tensor)] == [
        torch.float32, torch.bfloat16, torch.float32, torch.int64,
    ]  # fmt: skip
    ahead[0]["part"] += 1  # it may be written to


def test_only_so_much_is_loaded_ahead() -> None:
    """Views are asked for as those before them are taken."""
    asked: list[View] = []

    def views() -> Iterator[View]:
        for view in VIEWS:
            asked.append(view)
            yield view

    with closing(load_ahead(Numbers(), views(), 2, needed=3)) as loaded:
        next(loaded)
        assert len(asked) == 3 + 2 * 2
        next(loaded)
        assert len(asked) == 3 + 2 * 2 + 1


def test_an_error_of_a_worker_is_the_error_itself() -> None:
    """Where it belongs in the order, with what it carries, and no worker's traceback; all before it was loaded."""
    loaded = load_ahead(Numbers(fails_at=2), VIEWS, 2)
    assert len([next(loaded) for _ in range(8)]) == 8
    with pytest.raises(DataError, match="^picture 2 cannot be read; replace it$") as caught:
        next(loaded)
    assert (caught.value.path, caught.value.line) == (Path("some/where"), 7)
    assert caught.value.__cause__ is None
    assert multiprocessing.active_children() == []


def test_an_error_that_cannot_be_sent_keeps_its_words() -> None:
    with pytest.raises(D4KError, match="^picture: odd$"):
        next(load_ahead(Numbers(fails_at=2), [View(2, Crop(4, 4), 1)], 1))


def test_a_worker_that_is_killed_ends_the_run_in_one_sentence() -> None:
    with pytest.raises(D4KError, match=r"^a process that loads pictures .* was killed.*set data\.workers lower"):
        list(load_ahead(Numbers(kills_at=3), VIEWS, 2))
    assert multiprocessing.active_children() == []


def test_workers_end_when_the_iterator_is_closed_or_left_by_an_error() -> None:
    with closing(load_ahead(Numbers(), VIEWS, 2)) as loaded:
        next(loaded)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []

    def leave() -> None:
        with closing(load_ahead(Numbers(), VIEWS, 2)) as loaded:
            next(loaded)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert multiprocessing.active_children() == []


def test_a_signal_to_all_processes_leaves_the_workers_to_the_one_that_trains() -> None:
    """A scheduler ends a job so; the step that is under way may want more pictures, and the run then saves."""
    with closing(load_ahead(Numbers(), VIEWS, 2)) as loaded:
        next(loaded)
        for worker in multiprocessing.active_children():
            for number in (signal.SIGTERM, signal.SIGINT):
                os.kill(worker.pid or 0, number)
        assert len(list(loaded)) == len(VIEWS) - 1
    assert multiprocessing.active_children() == []


def test_a_signal_to_a_worker_that_has_just_begun_does_not_end_it(monkeypatch) -> None:
    """It comes between the fork and the first line that a worker runs."""

    def begin(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        _begin(*args)

    monkeypatch.setattr(prefetch, "_begin", begin)
    assert len(list(load_ahead(Numbers(), VIEWS, 2, context=multiprocessing.get_context("fork")))) == len(VIEWS)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()), "signals are held on"


def test_workers_end_with_a_process_that_is_killed() -> None:
    """They hold the end of a pipe that is at its end when none of them is left."""
    reader, writer = os.pipe()

    def hold() -> None:
        for _ in load_ahead(Numbers(), VIEWS, 2):
            os.write(writer, b".")
            signal.pause()

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read(1) == b"."
        process.kill()
        assert wait([pipe], 60), "the workers live on"
        assert pipe.read() == b""
    process.join()


def test_a_dataset_that_cannot_be_sent_is_loaded_here() -> None:
    """Where processes are not forked; it is said."""
    source = Encoding(None, [Sample("a", "", lambda: io.BytesIO(png()))])  # type: ignore[arg-type]
    spawn = multiprocessing.get_context("spawn")
    with pytest.warns(UserWarning, match=r"data\.workers counts as 0, since the dataset cannot be sent"):
        found = list(load_ahead(source, [View(0, Crop(4, 4))], 2, context=spawn))
    assert torch.equal(found[0], source.load(View(0, Crop(4, 4))))


def test_processes_that_are_not_forked_load_the_same(photos: Path) -> None:
    """They are sent the dataset, and not the model, which here could not be sent."""
    source = Encoding(lambda: None, FolderDataset(photos))  # type: ignore[arg-type]
    views = [View(index, Crop(4, 4)) for index in range(5)]
    found = list(load_ahead(source, views, 1, context=multiprocessing.get_context("spawn")))
    assert all(torch.equal(one, source.load(view)) for one, view in zip(found, views, strict=True))
    assert set(pickle.loads(pickle.dumps(source)).__dict__) == {"dataset"}


def png() -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((8, 6)).save(stream, "PNG")
    return stream.getvalue()


class TestBatches:
    """`Feed.batches` with workers, against `Feed.batch`."""

    def feed(self, backbone: Any, photos: Path, make: Config, workers: int, **data: Any) -> Feed:
        config = make(
            data={"crop": "random", "flip": True, "workers": workers, "buckets": ["16x16", "20x16"], **data},
            training={"batch_size": 2, "caption_dropout": 0.5},
        )
        dataset = FolderDataset(photos)
        return Feed(Encoding(backbone, dataset), choose_pictures(dataset, backbone, config), config, CPU, 1, 2)

    @pytest.mark.parametrize("first", [0, 7])
    def test_they_are_bit_identical_from_any_batch(
        self, backbone: Any, photos: Path, run_config: Config, first: int
    ) -> None:
        Image.new("RGB", (17, 17), "red").save(photos / "square.png")
        (photos / "square.txt").write_text("a square")
        ahead, plain = (self.feed(backbone, photos, run_config, workers) for workers in (2, 0))
        state = torch.get_rng_state()
        found = list(ahead.batches(first, first + 12))
        assert torch.equal(torch.get_rng_state(), state)
        assert len(found) == 12
        for micro, batch in enumerate(found, first):
            wanted = plain.batch(micro)
            assert (batch.ids, batch.size, batch.number) == (wanted.ids, wanted.size, 2 * micro + 1)
            for name in ("clean", "noise", "sigma"):
                assert torch.equal(getattr(batch, name), getattr(wanted, name))
            assert torch.equal(batch.conditioning.tensors["text"], wanted.conditioning.tensors["text"])

    def test_workers_load_them(self, backbone: Any, photos: Path, run_config: Config) -> None:
        """Where the pictures are neither few batches nor all kept in memory."""
        for workers, data, batches, started in (
            (2, {}, 12, 2),
            (0, {}, 12, 0),
            (2, {}, 8, 0),
            (2, {"crop": "center", "flip": False}, 12, 0),
        ):
            feed = self.feed(backbone, photos, run_config, workers, **data)
            with closing(feed.batches(0, batches)) as found:
                next(found)
                assert len(multiprocessing.active_children()) == started
