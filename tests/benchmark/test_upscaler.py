"""The upscaled row with an upscaler that has weights: which ones they were is in everything that names it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from attrs import frozen
from click.testing import CliRunner
from torch import Tensor

from d4k import CheckpointError, OutputError
from d4k.benchmark import BenchmarkSettings, run_benchmark
from d4k.cli import main
from d4k.images import Bicubic, read_recipe
from d4k.models import Loading
from d4k.plugins import Entry, registry


@frozen
class Network:
    """A filter that takes itself for a network."""

    file: str
    packages: ClassVar[tuple[str, ...]] = ("pytest",)

    @property
    def settings(self) -> dict[str, Any]:
        try:
            digest = hashlib.sha256(Path(self.file).read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(f"there is no file {self.file}") from error
        return {"file": Path(self.file).name, "sha256": digest}

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return Bicubic()(pixels, height, width)


@pytest.fixture
def weights(fake_plugin: None, tmp_path: Path) -> Path:
    """The file of the upscaler `network`, which is registered."""
    registry().add(Entry("upscaler", "network", f"{__name__}:Network", "a toy", "d4k-fake", "1.0"))
    (tmp_path / "net.pth").write_bytes(b"weights")
    return tmp_path / "net.pth"


@pytest.fixture(autouse=True)
def small_photographs() -> Iterator[None]:
    """The pictures of the tests are smaller than the benchmark, which is warned of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*a poor reference.*")
        yield


@pytest.fixture
def run(photos: Path, weights: Path, tmp_path: Path) -> Callable[[], Any]:
    """A benchmark of one picture; called again, it goes on."""
    settings = BenchmarkSettings(
        models="fake-model",
        dataset="folder",
        dataset_options={"path": str(photos)},
        width=32,
        height=32,
        limit=1,
        metrics=("brightness",),
        resamples=0,
        upscaler="network",
        upscaler_options={"file": str(weights)},
        loading=Loading(device="cpu"),
    )
    return lambda: run_benchmark(tmp_path / "out", settings, say=lambda line: None)


DIGEST = hashlib.sha256(b"weights").hexdigest()


def test_manifest_recipe_and_scores_say_which_network_enlarged(run: Callable[[], Any], tmp_path: Path) -> None:
    """By the name of its file and its SHA-256, with the versions of the packages that compute."""
    result = run()
    found = {"file": "net.pth", "sha256": DIGEST}
    assert result.manifest["upscaler"]["settings"] == found
    assert result.manifest["versions"]["pytest"] == pytest.__version__
    (picture,) = (tmp_path / "out" / "models" / "fake-model-upscaled" / "pictures").glob("*.png")
    assert read_recipe(picture)["enlarged"]["upscaler_settings"] == found
    assert result.evaluations[2].about["upscaler"] == f"network net.pth {DIGEST[:12]}"


def test_other_weights_under_the_same_name_do_not_go_on(run: Callable[[], Any], weights: Path) -> None:
    """The picture that is there was enlarged by others."""
    run()
    weights.write_bytes(b"other weights")
    with pytest.raises(OutputError, match=r"upscaler\.settings\.sha256 was"):
        run()


def test_missing_weights_are_refused_before_anything_is_sampled(
    run: Callable[[], Any], weights: Path, tmp_path: Path
) -> None:
    """And nothing is left."""
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"there is no file .*net\.pth"):
        run()
    assert not (tmp_path / "out").exists()


def test_table_names_the_upscaler_unless_it_is_the_usual_one(photos: Path, weights: Path, tmp_path: Path) -> None:
    """The row of the table, with the file and the beginning of its digest."""
    given = ["--model", "fake-model", "--dataset", "folder", "--dataset-option", f"path={photos}", "--limit", "1"]
    more = ["--size", "20", "--metric", "brightness", "--no-report", "--device", "cpu", "--output", str(tmp_path / "b")]
    network = ["--upscaler", "network", "--upscaler-option", f"file={weights}"]
    result = CliRunner().invoke(main, ["benchmark", *given, *more, *network])
    assert result.exit_code == 0, result.output
    assert f"fake-model-upscaled (network net.pth {DIGEST[:12]})" in result.stdout
    assert f"enlarged by network net.pth {DIGEST[:12]}" in result.stderr
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert manifest["upscaler"]["options"] == {"file": str(weights)}
