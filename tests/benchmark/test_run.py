"""Whole benchmarks: of the fake model in this process, of a tiny one in processes that are killed, or are two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import benchmark_cases
import numpy as np
import pytest
import torch
from PIL import Image

from d4k import DataError, OutputError, UnknownNameError
from d4k.benchmark import BenchmarkResult, BenchmarkSettings, run_benchmark
from d4k.errors import CheckpointError, ConfigError
from d4k.evaluation import read_evaluation
from d4k.images import Crop, open_picture, read_recipe
from d4k.models import Loading, ModelRef
from d4k.plugins import Entry, registry

QUIET = {"say": lambda line: None}


class Distance:
    """A metric of sets: how far the mean grey level is from that of the references."""

    needs = frozenset({"image", "references"})
    higher_is_better, unit = False, "levels"

    def load(self, device: torch.device) -> None:
        """Nothing."""

    def observe(self, image: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([each.double().mean() for each in image])[:, None]

    def score(self, rows: torch.Tensor, references: torch.Tensor | None = None) -> float:
        assert references is not None
        return abs(float(rows.mean() - references.mean()))


class Weightless(Distance):
    """A metric whose weights cannot be had."""

    needs = frozenset({"image"})  # type: ignore[assignment]

    def load(self, device: torch.device) -> None:
        raise CheckpointError("clip-score needs weights.safetensors: put it into models/")


@pytest.fixture
def metrics(fake_plugin: None) -> None:
    """The two metrics above are registered, too."""
    for name, cls in (("distance", Distance), ("clip-score", Weightless)):
        registry().add(Entry("metric", name, f"{cls.__module__}:{cls.__name__}", "a toy", "d4k-fake", "1.0"))


@pytest.fixture
def given(photos: Path, fake_plugin: None) -> Callable[..., BenchmarkSettings]:
    """Settings of the fake model, which was trained at 16 pixels, and three photographs."""

    def make(**changed: Any) -> BenchmarkSettings:
        usual: dict[str, Any] = {
            "models": "fake-model",
            "dataset": "folder",
            "dataset_options": {"path": str(photos)},
            "width": 32,
            "height": 20,
            "limit": 3,
            "metrics": ("brightness",),
            "resamples": 0,
            "loading": Loading(device="cpu"),
        }
        return BenchmarkSettings(**{**usual, **changed})

    return make


@pytest.fixture(autouse=True)
def small_photographs() -> Iterator[None]:
    """The pictures of the tests are 24x20, so that they are enlarged, which is warned of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*a poor reference.*")
        yield


def run(output: Path, settings: BenchmarkSettings) -> BenchmarkResult:
    return run_benchmark(output, settings, **QUIET)


def scores(folder: Path) -> dict[str, bytes]:
    """The bytes of every scores.json and picture, and of the manifest."""
    files = [
        *folder.rglob("scores.json"),
        *folder.rglob("*.png"),
        *folder.rglob("index.jsonl"),
        folder / "manifest.json",
    ]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


class TestRows:
    """What is sampled, cut and measured."""

    def test_photographs_model_and_upscaled_are_rows(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """In this order, each of as many pictures as there are captions, with the prompts of the dataset."""
        result = run(tmp_path / "out", given())
        assert [row.name for row in result.evaluations] == ["photographs", "fake-model", "fake-model-upscaled"]
        for folder, evaluation in zip(result.folders, result.evaluations, strict=True):
            assert [picture.prompt for picture in evaluation.pictures] == ["picture 0", "picture 1", "picture 2"]
            assert [picture.id for picture in evaluation.pictures] == ["0.png", "1.png", "2.png"]
            assert {(picture.width, picture.height) for picture in evaluation.pictures} == {(32, 20)}
            assert read_evaluation(folder) == evaluation
            assert (folder / evaluation.rows).resolve() == (tmp_path / "out" / "rows").resolve()

    def test_scores_are_of_the_pictures_that_are_there(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """The mean grey level, computed again from the files."""
        result = run(tmp_path / "out", given())
        for folder, evaluation in zip(result.folders, result.evaluations, strict=True):
            files = sorted((folder if evaluation.name == "photographs" else folder / "pictures").glob("*.png"))
            levels = [np.asarray(Image.open(file)).mean() for file in files]
            assert evaluation.scores[0].value == pytest.approx(np.mean(levels), abs=1e-9)

    def test_photographs_are_the_centre_of_the_dataset_s(
        self, tmp_path: Path, photos: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """The short side is resized to the size, and the rest cut away evenly."""
        run(tmp_path / "out", given(width=16, height=16))
        wanted = Crop(16, 16)(open_picture(photos / "1.png"), 0)
        assert open_picture(tmp_path / "out" / "photographs" / "0001-1.png").tobytes() == wanted.tobytes()

    def test_upscaled_pictures_are_the_own_size_enlarged_by_lanczos(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """Sampled at 16x16 from the same seeds, enlarged to 32x32 as Pillow does."""
        result = run(tmp_path / "out", given(width=32, height=32))
        folder = tmp_path / "out" / "models" / "fake-model-upscaled"
        files = sorted((folder / "pictures").glob("*.png"))
        assert len(files) == 3
        for file in files:
            small = Image.open(folder / "own-size" / file.name)
            assert small.size == (16, 16)
            assert read_recipe(folder / "own-size" / file.name)["seed"] == read_recipe(file)["seed"]
            enlarged = small.resize((32, 32), Image.Resampling.LANCZOS)
            assert open_picture(file).tobytes() == enlarged.tobytes()
        assert result.evaluations[2].about["sampled at"] == "16x16"

    def test_own_size_gives_no_upscaled_row_and_says_so(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """The model's size is the benchmark's where none is given."""
        said: list[str] = []
        result = run_benchmark(tmp_path / "out", given(width=None, height=None), say=said.append)
        assert [row.name for row in result.evaluations] == ["photographs", "fake-model"]
        assert result.evaluations[1].pictures[0].width == 16
        assert any("no upscaled column" in line for line in said)

    def test_a_metric_of_sets_compares_with_the_photographs_but_not_these(
        self, tmp_path: Path, metrics: None, photos: Path
    ) -> None:
        """The photographs have every score but that of a distance from themselves."""
        settings = BenchmarkSettings(
            models="fake-model", dataset="folder", dataset_options={"path": str(photos)}, width=32, height=32,
            metrics=("brightness", "distance"), loading=Loading(device="cpu"),
        )  # fmt: skip
        rows = {
            row.name: {score.metric: score for score in row.scores}
            for row in run(tmp_path / "out", settings).evaluations
        }
        assert list(rows["photographs"]) == ["brightness"]
        far = rows["fake-model"]["distance"]
        assert far.references == 5
        apart = rows["fake-model"]["brightness"].value - rows["photographs"]["brightness"].value
        assert far.value == pytest.approx(abs(apart))

    def test_two_models_of_one_prompt_start_from_the_same_noise(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """Seeds differ from picture to picture and not from model to model."""
        models = (ModelRef("fake-model"), ModelRef("fake-model", options={"seed": 3}))
        result = run(tmp_path / "out", given(models=models, width=16, height=16))
        one, two = ([picture.seed for picture in row.pictures] for row in result.evaluations[1:])
        assert [row.name for row in result.evaluations[1:]] == ["fake-model", "fake-model-2"]
        assert one == two
        assert len(set(one)) == 3


class TestGoingOn:
    """Run again, it does what is missing, and nothing else."""

    def test_finished_benchmark_is_not_touched(self, tmp_path: Path, given: Callable[..., BenchmarkSettings]) -> None:
        """Neither the bytes nor the times of pictures change."""
        first = run(tmp_path / "out", given())
        before, times = scores(tmp_path / "out"), {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*.png")}
        assert run(tmp_path / "out", given()) == first
        assert scores(tmp_path / "out") == before
        assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*.png")} == times

    def test_what_was_removed_is_made_again_alike(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """A picture, a photograph, all rows and all scores."""
        run(tmp_path / "out", given())
        before = scores(tmp_path / "out")
        for pattern in ("photographs/0001*.png", "models/*/pictures/0002*.png", "models/*/scores.json"):
            for file in list((tmp_path / "out").glob(pattern)):
                file.unlink()
        shutil.rmtree(tmp_path / "out" / "rows")
        run(tmp_path / "out", given())
        assert scores(tmp_path / "out") == before

    def test_models_metrics_and_pictures_may_be_added_at_the_end(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """The result is that of a benchmark that had them from the beginning."""
        more = {"models": ("fake-model", ModelRef("fake-model", options={"seed": 3})), "limit": 4}
        run(tmp_path / "grown", given())
        run(tmp_path / "grown", given(**more))
        run(tmp_path / "whole", given(**more))
        assert scores(tmp_path / "grown") == scores(tmp_path / "whole")

    def test_another_setting_is_refused_and_named(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """Nothing is changed by the attempt."""
        run(tmp_path / "out", given())
        before = scores(tmp_path / "out")
        for changed, words in (
            ({"seed": 1}, "seed was 0, and is 1"),
            ({"width": 24}, "width was 32, and is 24"),
            ({"steps": 2}, "steps was None, and is 2"),
            ({"guidance": 1.0}, "guidance was None, and is 1.0"),
            ({"limit": 2}, r"dataset\.pictures had 3, and has 2: 2\.png is missing"),
            ({"metric_options": {"brightness": {"scale": 2.0}}}, r"metrics\[brightness\]\.options\.scale was 1\.0"),
            ({"loading": Loading(device="cpu", dtype="bfloat16")}, "loading.dtype was 'float32'"),
        ):
            with pytest.raises(OutputError, match=words):
                run(tmp_path / "out", given(**changed))
        assert scores(tmp_path / "out") == before

    def test_another_caption_or_another_picture_of_the_dataset_is_refused(
        self, tmp_path: Path, photos: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """The manifest has the captions and the SHA-256 of every file."""
        run(tmp_path / "out", given())
        (photos / "1.txt").write_text("another")
        with pytest.raises(OutputError, match=r"pictures\[1\.png\]\.caption was 'picture 1', and is 'another'"):
            run(tmp_path / "out", given())
        (photos / "1.txt").write_text("picture 1")
        shutil.copy(photos / "2.png", photos / "1.png")
        with pytest.raises(OutputError, match=r"pictures\[1\.png\]\.sha256 was"):
            run(tmp_path / "out", given())

    def test_a_picture_that_was_changed_since_is_refused(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """The manifest has the SHA-256 of every picture that was measured."""
        run(tmp_path / "out", given())
        file = next((tmp_path / "out" / "models" / "fake-model" / "pictures").glob("*.png"))
        Image.new("RGB", (32, 20)).save(file)
        with pytest.raises(OutputError, match=f"{file.name} is not the picture that was measured before"):
            run(tmp_path / "out", given())

    def test_other_versions_warn_and_go_on(self, tmp_path: Path, given: Callable[..., BenchmarkSettings]) -> None:
        """As pictures by another version of torch are allowed in a folder."""
        run(tmp_path / "out", given())
        path = tmp_path / "out" / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["versions"]["torch"] = "1.0"
        path.write_text(json.dumps(manifest))
        with pytest.warns(UserWarning, match=r"was begun with torch 1\.0 \(here"):
            run(tmp_path / "out", given())


class TestRefusals:
    """What cannot work is refused before anything is computed, and leaves nothing."""

    @pytest.mark.parametrize(
        ("changed", "error", "words"),
        [
            ({"models": "fake-modle"}, UnknownNameError, "did you mean 'fake-model'"),
            ({"dataset": "foldr"}, UnknownNameError, "did you mean 'folder'"),
            ({"metrics": ("brightnes",)}, UnknownNameError, "did you mean 'brightness'"),
            ({"upscaler": "lanczoss"}, UnknownNameError, "did you mean 'lanczos'"),
            ({"split": "eval"}, ConfigError, "no option 'split'"),
            ({"width": 30}, ConfigError, "model 'fake-model' cannot take part: width 30 is not a multiple of 4"),
            ({"width": 128, "height": 128}, ConfigError, "covers at most 64 pixels"),
            ({"metric_options": {"brightnes": {}}}, ConfigError, "did you mean 'brightness'"),
            ({"loading": Loading(device="cpu", dtype="float31")}, UnknownNameError, "dtype"),
        ],
    )
    def test_a_bad_setting_is_one_clear_line(
        self,
        tmp_path: Path,
        given: Callable[..., BenchmarkSettings],
        changed: dict[str, Any],
        error: type[Exception],
        words: str,
    ) -> None:
        with pytest.raises(error, match=words):
            run(tmp_path / "out", given(**changed))
        assert not (tmp_path / "out").exists()

    def test_a_folder_of_something_else_is_refused(
        self, tmp_path: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """Also one whose manifest is of something else."""
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match="is not empty"):
            run(tmp_path, given())
        (tmp_path / "manifest.json").write_text('{"format": 1, "kind": "other"}')
        with pytest.raises(OutputError, match="is not of a d4k benchmark"):
            run(tmp_path, given())

    def test_a_picture_that_is_none_is_named(
        self, tmp_path: Path, photos: Path, given: Callable[..., BenchmarkSettings]
    ) -> None:
        """Before anything is sampled."""
        (photos / "1.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"1\.png cannot be read|1\.png"):
            run(tmp_path / "out", given())
        assert not (tmp_path / "out").exists()

    def test_a_metric_without_weights_is_left_out_or_refused_where_it_was_named(
        self, tmp_path: Path, metrics: None, photos: Path
    ) -> None:
        """The warning, and the error, say which file to put where."""
        usual: dict[str, Any] = {
            "models": "fake-model", "dataset": "folder", "dataset_options": {"path": str(photos)}, "width": 16,
            "loading": Loading(device="cpu"),
        }  # fmt: skip
        with pytest.raises(CheckpointError, match="put it into models"):
            run(tmp_path / "out", BenchmarkSettings(metrics=("brightness", "clip-score"), **usual))
        with (
            pytest.warns(UserWarning, match="is left out") as said,
            pytest.raises(ConfigError, match="no metric can be measured here"),
        ):
            run(tmp_path / "out", BenchmarkSettings(**usual))
        words = [str(warning.message) for warning in said]
        assert any("metric 'clip-score' is left out: clip-score needs weights.safetensors" in line for line in words)
        assert any("metric 'fid' is left out: no plugin brings it here; install d4k-fid" in line for line in words)


def launched(*arguments: str) -> str:
    """What a process prints that runs the cases with one thread, so that sums are added in one order."""
    case = Path(benchmark_cases.__file__)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    result = subprocess.run(
        [sys.executable, *arguments[:-2], str(case), *arguments[-2:]], capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result of one process that was left in peace."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    run_benchmark(folder, benchmark_cases.settings(), **QUIET)
    return scores(folder)


class TestProcesses:
    """A tiny model in real processes."""

    def test_killed_again_and_again_it_ends_with_the_same_bytes(self, tmp_path: Path, alone: dict[str, bytes]) -> None:
        """SIGKILL at a later write each time; nothing half-written is left."""
        case = [sys.executable, benchmark_cases.__file__, "kill", str(tmp_path / "out"), "7"]
        result = subprocess.run(case, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert result.returncode == 0, result.stderr
        assert int(result.stdout.split()[-1]) >= 2
        assert scores(tmp_path / "out") == alone
        assert not list((tmp_path / "out").rglob(".*"))

    def test_two_processes_make_what_one_makes(self, tmp_path: Path, alone: dict[str, bytes]) -> None:
        """Launched by torch, as accelerate does on GPUs."""
        launched("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "run", str(tmp_path / "out"))
        assert scores(tmp_path / "out") == alone
