"""Measuring: rows are kept and found again, by one process or several, and memory does not grow with the pictures."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from weakref import WeakSet

import measure_cases
import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from measure_cases import Mean
from PIL import Image
from torch import Tensor

from d4k.errors import ConfigError, D4KError, DataError, OutputError
from d4k.evaluation import Measuring, Subject, find_subjects, measure, observe, read_evaluation, read_rows, shares
from d4k.evaluation.rows import open_rows
from d4k.evaluation.torchmetrics import TorchMetric

CPU = {"device": "cpu", "resamples": 20, "workers": 2}


def pictures(folder: Path, count: int, side: int = 12, first: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")
    return folder


def level(file: Path) -> float:
    with Image.open(file) as picture:
        return float(np.asarray(picture).mean())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return pictures(tmp_path / "pictures", 7)


def test_score_is_that_of_the_files_and_says_what_it_rests_on(folder: Path, tmp_path: Path) -> None:
    """Value, interval, count, a line a picture with its own value, and rows that are read again."""
    settings = Measuring(output=tmp_path / "out", name="mine", about={"model": "none"}, **CPU)
    found = measure(find_subjects(folder), {"mean": Mean()}, settings)
    levels = [level(file) for file in sorted(folder.iterdir())]
    (score,) = found.scores
    assert score.value == pytest.approx(np.mean(levels))
    assert score.interval is not None
    assert score.interval[0] < score.value < score.interval[1]
    assert (score.count, score.remarks, found.faults) == (7, (), ())
    assert [picture.values["mean"] for picture in found.pictures] == pytest.approx(levels)
    assert [picture.file for picture in found.pictures] == [f"../pictures/{n:04d}.png" for n in range(7)]
    assert read_evaluation(tmp_path / "out") == found
    rows = read_rows(tmp_path / "out", found, "mean")
    assert [row.shape for row in rows] == [(1, 1)] * 7
    assert torch.cat(rows)[:, 0].tolist() == pytest.approx(levels)


def test_nothing_is_measured_twice_and_nothing_loaded_where_all_rows_are_there(folder: Path, tmp_path: Path) -> None:
    """Nor by a metric of another name and the same observation; pictures that are added are measured alone."""
    settings = Measuring(output=tmp_path / "out", **CPU)
    first, again, added = Mean(), Mean(), Mean()
    one = measure(find_subjects(folder), {"mean": first, "same": (shared := Mean(least=2))}, settings)
    assert (sum(first.seen), len(first.loads), shared.seen, shared.loads) == (7, 1, [], [])
    two = measure(find_subjects(folder), {"mean": again, "other name": again}, settings)
    assert (again.seen, again.loads) == ([], [])
    assert two.scores[0] == one.scores[0]
    pictures(folder, 2, first=7)
    (folder / "0000.png").rename(folder / "renamed.png")
    assert measure(find_subjects(folder), {"mean": added}, settings).scores[0].count == 9
    assert sum(added.seen) == 2


def test_rows_that_are_there_are_not_decoded(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are read for their digests only."""
    settings = Measuring(output=tmp_path / "out", **CPU)
    first = measure(find_subjects(folder), {"mean": Mean()}, settings)
    monkeypatch.setattr(observe, "decode", lambda look: pytest.fail(f"{look.file} was decoded"))
    assert measure(find_subjects(folder), {"mean": Mean()}, settings) == first


@frozen
class Options:
    """A metric without an observation: its class and options are what rows depend on."""

    scale: float = 1.0
    weights: Any = None
    needs = frozenset({"image"})
    higher_is_better = None
    unit = ""

    def load(self, device: torch.device) -> None: ...

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        return torch.stack([picture.double().mean() * self.scale for picture in image])[:, None]

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean())


def test_other_options_have_other_rows(folder: Path, tmp_path: Path) -> None:
    settings = Measuring(output=tmp_path / "out", **CPU)
    one, two = (measure(find_subjects(folder), {"x": Options(s)}, settings).scores[0].value for s in (1.0, 2.0))
    assert two == pytest.approx(2 * one)


def test_an_option_that_differs_between_processes_needs_an_observation(folder: Path) -> None:
    with pytest.raises(ConfigError, match="rows of x cannot be kept: it has an option that is no plain value, a obj"):
        measure(find_subjects(folder), {"x": Options(weights=object())}, Measuring(**CPU))


class Said(Options):
    """A metric of prompts: their length."""

    needs = frozenset({"prompt"})

    def observe(self, prompt: Sequence[str]) -> Tensor:  # type: ignore[override]
        return torch.tensor([[float(len(text))] for text in prompt])


def test_a_prompt_is_part_of_the_key_where_the_metric_needs_it(folder: Path, tmp_path: Path) -> None:
    settings = Measuring(output=tmp_path / "out", **CPU)
    mean = Mean()
    for letters in ("a", "bb"):
        found = measure(find_subjects(folder, [letters] * 7), {"said": Said(), "mean": mean}, settings)
        assert found.scores[0].value == len(letters)
    assert sum(mean.seen) == 7


def test_batches_are_limited_in_count_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that is larger than the limit is a batch of its own."""
    folder = pictures(tmp_path / "p", 5, side=10)
    pictures(folder, 1, side=40, first=5)
    pictures(folder, 3, side=10, first=6)
    by_pixels, by_count = Mean(), Mean()
    monkeypatch.setattr(observe, "PIXELS", 450)
    measure(find_subjects(folder), {"mean": by_pixels}, Measuring(**CPU))
    assert by_pixels.seen == [4, 1, 1, 3]
    monkeypatch.setattr(observe, "PIXELS", 2**26)
    monkeypatch.setattr(observe, "COUNT", 2)
    measure(find_subjects(folder), {"mean": by_count}, Measuring(**CPU))
    assert by_count.seen == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("count", [30, 120])
def test_as_many_pictures_are_held_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Those of a batch, and those that are decoded meanwhile."""
    held, most, decode = WeakSet[Tensor](), 0, observe.decode

    def counted(look: Any) -> Tensor:
        nonlocal most
        pixels = decode(look)
        held.add(pixels)
        most = max(most, len(held))
        return pixels

    monkeypatch.setattr(observe, "COUNT", 4)
    monkeypatch.setattr(observe, "decode", counted)
    gc.disable()
    try:
        measure(find_subjects(pictures(tmp_path / "p", count, side=4)), {"mean": Mean()}, Measuring(**CPU))
    finally:
        gc.enable()
    assert 4 <= most <= 10


def test_many_batches_leave_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "COUNT", 3)
    folder = pictures(tmp_path / "p", 40, side=4)
    measure(find_subjects(folder), {"mean": Mean(), "x": Options()}, Measuring(output=tmp_path / "out", **CPU))
    assert len(list((tmp_path / "out" / "rows" / "shards").iterdir())) == 2


def test_without_an_output_nothing_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = sorted(tmp_path.rglob("*"))
    assert measure(find_subjects(folder), {"mean": Mean()}, Measuring(**CPU)).rows == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_a_metric_that_breaks_its_contract_is_named(folder: Path) -> None:
    class Wrong(Options):
        def observe(self, image: Sequence[Tensor]) -> Tensor:
            return torch.zeros(1, 3)

    with pytest.raises(D4KError, match=r"wrong: observe must return .* of 7 pictures, got \(1, 3\)"):
        measure(find_subjects(folder), {"wrong": Wrong()}, Measuring(**CPU))


class Distance(Options):
    """A metric of sets: how far apart the means of two sets are."""

    needs = frozenset({"image", "references"})

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        assert references is not None
        return float((rows.mean() - references.mean()).abs())


def test_references_of_a_set_are_observed_once_and_kept(folder: Path, tmp_path: Path) -> None:
    """They share the store; a score says how many there were, and no picture has a value of its own."""
    others = pictures(tmp_path / "references", 4, first=50)
    (others / "cut.png").write_bytes(b"")
    settings = Measuring(output=tmp_path / "out", references=sorted(others.iterdir()), **CPU)
    found = measure(find_subjects(folder), {"distance": Distance()}, settings)
    levels = [np.mean([level(file) for file in one.glob("0*.png")]) for one in (folder, others)]
    (score,) = found.scores
    assert score.value == pytest.approx(abs(levels[0] - levels[1]))
    assert (score.count, score.references) == (7, 4)
    assert score.remarks == ("1 of 5 reference pictures was left out: 1 empty.",)
    assert (found.pictures[0].values, len(found.references["distance"])) == ({}, 4)
    assert [fault.file for fault in found.faults] == ["../references/cut.png"]
    assert measure(find_subjects(folder), {"distance": Distance()}, settings) == found
    with pytest.raises(ConfigError, match="^distance needs reference pictures: pass --references FOLDER"):
        measure(find_subjects(folder), {"distance": Distance()}, Measuring(**CPU))


class Sum:
    """What torchmetrics calls a metric, of a whole set: the sum of what it was shown."""

    def __init__(self) -> None:
        self.shown: list[float] = []

    def update(self, img: Tensor) -> None:
        self.shown.append(float(img.double().mean()))

    def compute(self) -> Tensor:
        return torch.tensor(sum(self.shown))

    def reset(self) -> None:
        self.shown.clear()


def test_a_metric_of_a_whole_set_sees_it_in_order_and_has_no_interval(folder: Path, tmp_path: Path) -> None:
    """It is computed anew each time, says that it has no interval, and keeps no rows."""
    metric = TorchMetric(Sum(), pixels="bytes", arguments=("image",), whole_set=True)
    settings = Measuring(output=tmp_path / "out", **CPU)
    wanted = [level(file) for file in sorted(folder.iterdir())]
    for _ in range(2):
        (score,) = measure(find_subjects(folder), {"sum": metric}, settings).scores
        assert score.value == pytest.approx(sum(wanted), rel=1e-5)
        assert metric.metric.shown == pytest.approx(wanted, rel=1e-5)
        assert score.interval is None
        assert any("no interval" in remark for remark in score.remarks)
    assert list((tmp_path / "out" / "rows" / "shards").iterdir()) == []


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., BaseProcess]]:
    """Starts a process that measures two pictures at a time, in a server that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["measure_cases"])

    def begin(*inputs: object) -> BaseProcess:
        process = context.Process(target=measure_cases.main, args=inputs)
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:  # before Python 3.13 the server has no other way to find the module
        folder = Path(measure_cases.__file__).parent
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
        yield begin


def ended(*processes: BaseProcess) -> list[int | None]:
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def rank(number: int) -> dict[str, str]:
    """What a launcher says to one of two processes."""
    return {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def test_a_killed_measurement_goes_on_where_it_ended(start: Any, folder: Path, tmp_path: Path) -> None:
    """Only the pictures in flight are observed again, and the scores are those of one that was not killed."""
    assert ended(start(folder, tmp_path / "out", tmp_path / "log", 5)) == [-signal.SIGKILL]
    before = (tmp_path / "log").read_text().split()
    assert len(before) == 6
    assert not (tmp_path / "out" / "scores.json").exists()
    second = Mean(log=tmp_path / "second")
    settings = Measuring(output=tmp_path / "out", name="it", **CPU)
    found = measure(find_subjects(folder), {"mean": second}, settings)
    assert (tmp_path / "second").read_text().split() == ["0004.png", "0005.png", "0006.png"]
    assert found == measure(find_subjects(folder), {"mean": Mean()}, evolve(settings, output=tmp_path / "alone"))


def test_two_processes_share_the_pictures_and_write_what_one_does(start: Any, folder: Path, tmp_path: Path) -> None:
    """Each picture is observed by one of them; the files of scores are alike."""
    logs = [tmp_path / "log-0", tmp_path / "log-1"]
    both = [start(folder, tmp_path / "out", log, 0, rank(number)) for number, log in enumerate(logs)]
    assert ended(*both) == [0, 0]
    assert [log.read_text().split() for log in logs] == [
        [f"{number:04d}.png" for number in range(first, 7, 2)] for first in (0, 1)
    ]
    assert ended(start(folder, tmp_path / "alone", tmp_path / "log", 0)) == [0]
    written = [(tmp_path / name / "scores.json").read_bytes() for name in ("out", "alone")]
    assert written[0] == written[1]
    assert list((tmp_path / "out" / "rows").glob(".*.lock")) == []


def test_the_first_process_does_what_one_that_died_has_left(start: Any, folder: Path, tmp_path: Path) -> None:
    """It waits for nobody who is gone."""
    assert ended(start(folder, tmp_path / "out", tmp_path / "log-1", 1, rank(1))) == [-signal.SIGKILL]
    assert ended(start(folder, tmp_path / "out", tmp_path / "log-0", 0, rank(0))) == [0]
    assert read_evaluation(tmp_path / "out").scores[0].count == 7
    assert sorted((tmp_path / "log-0").read_text().split()) == [f"{number:04d}.png" for number in range(7)]


def test_a_process_that_never_comes_is_waited_for_a_while_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "GRACE", 0.0)
    for name, value in rank(0).items():
        monkeypatch.setenv(name, value)
    found = measure(find_subjects(folder), {"mean": Mean()}, Measuring(output=tmp_path / "out", **CPU))
    assert found.scores[0].count == 7


def test_a_process_that_is_not_the_first_returns_no_scores(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It observes its share, and writes nothing but rows; without rows to share it measures all by itself."""
    for name, value in rank(1).items():
        monkeypatch.setenv(name, value)
    metric = Mean()
    found = measure(find_subjects(folder), {"mean": metric}, Measuring(output=tmp_path / "out", **CPU))
    assert (found.scores, sum(metric.seen), (tmp_path / "out" / "scores.json").exists()) == ((), 3, False)
    assert measure(find_subjects(folder), {"mean": Mean()}, Measuring(**CPU)).scores[0].count == 7


def test_a_second_launch_on_the_same_pictures_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "TAKEN", 0.0)
    process, tasks = shares.Process(0, 2), [observe.Task(None, wanted={"ab" * 16: None})]  # type: ignore[arg-type, dict-item]
    store = open_rows(tmp_path / "rows")

    def again(share: Any) -> None:
        shares.share_out(tasks, store, process, lambda share: None)

    with pytest.raises(OutputError, match="another d4k evaluate is measuring these pictures"):
        shares.share_out(tasks, store, process, again)


def test_a_picture_that_changes_meanwhile_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row would be kept under the digest of other bytes."""

    class Changing(Options):
        def load(self, device: torch.device) -> None:
            Image.new("RGB", (12, 12)).save(folder / "0006.png")

    monkeypatch.setattr(observe, "COUNT", 1)
    with pytest.raises(DataError, match=r"0006\.png was changed while it was measured"):
        measure(find_subjects(folder), {"x": Changing()}, Measuring(device="cpu", workers=1))


def test_paths_are_kept_relative_below_what_is_moved_together(folder: Path, tmp_path: Path) -> None:
    """Beside the output, or beside the store; others are absolute."""
    home = tmp_path / "benchmark"
    near = pictures(home / "pictures" if home.mkdir() is None else home, 1)
    subjects = [Subject("near", near / "0000.png"), Subject("far", folder / "0001.png")]
    settings = Measuring(output=home / "models" / "mine", store=home / "rows", **CPU)
    found = measure(subjects, {"mean": Mean()}, settings)
    assert [picture.file for picture in found.pictures] == [
        "../../pictures/0000.png",
        (folder / "0001.png").as_posix(),
    ]
    assert found.rows == "../../rows"
    home.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "models" / "mine"
    assert len(read_rows(moved, read_evaluation(moved), "mean")) == 2
