"""The comparison of ways to a large picture, in seconds: it goes on where it stopped, and measures what it says."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from d4k import ConfigError, Pipeline
from d4k.images import open_picture, picture_size, to_tensor
from d4k.seeds import numbered_seed

FOLDER = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    """The names of the three scripts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        modules = [importlib.import_module(name) for name in ("stages_pictures", "stages_report", "stages")]
        yield SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@pytest.fixture(scope="module")
def plan(study: Any) -> Any:
    """A plan of seconds."""
    return study.Plan(small=32, steps=3, restart=0.9)


@pytest.fixture(scope="module")
def extent(study: Any) -> Any:
    """Few and small pictures."""
    return study.Extent(sizes=(64, 128), seeds=(0, 1), captions=2)


@pytest.fixture(scope="module")
def done(study: Any, plan: Any, extent: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all pictures of the short plan."""
    folder = tmp_path_factory.mktemp("stages") / "results"
    study.main(folder, [plan], extent)
    return folder


def rows(text: str) -> list[str]:
    """First cells of a table in Markdown."""
    return [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()[2:]]


def test_it_leaves_means_differences_and_a_sheet_for_every_size(study: Any, done: Path) -> None:
    """Each figure with its interval; the sheet has a column a method."""
    parts = (done / "tables.md").read_text().strip().split("\n\n")
    assert [part for part in parts if part.startswith("###")] == [
        "### tiny-sd3 at 64 pixels",
        "### tiny-sd3 at 128 pixels",
    ]
    means, differences = parts[2], parts[4]
    assert rows(means) == ["photograph through the autoencoder", *study.METHODS]
    assert rows(differences) == [f"{one} - {other}" for one, other in study.PAIRS]
    assert {line.count("[") for line in [*means.splitlines()[2:], *differences.splitlines()[2:]]} == {5}
    assert "2 captions, 2 seeds each; restart 0.9" in parts[1]
    for size in (64, 128):
        assert picture_size(done / "images" / f"stages-tiny-sd3-{size}.jpg")[0] > 5 * 256


def test_its_stages_are_the_pictures_of_one_generation_in_stages(study: Any, plan: Any, done: Path) -> None:
    """Bit for bit, though each stage here is a file that the next one begins with; and the guidance changes them."""
    pipe = Pipeline.from_pretrained("tiny-sd3", positions="interpolate")
    settings = {"stages": (32, 64, 128), "steps": plan.steps, "restart": plan.restart}
    found = []
    for method, guidance in ((study.STAGES, {}), (study.GUIDED, {"alignment": 1.0, "cutoff": 0.25})):
        [expected] = pipe.generate("a tabby cat", seed=numbered_seed(1, "stages", 1), **settings, **guidance)
        kept = open_picture(study.Study(done / "tiny-sd3", plan).path(study.Work(method, 128, 1, 1)))
        assert torch.equal(to_tensor(kept), to_tensor(expected))
        found.append(to_tensor(kept))
    assert not torch.equal(*found)


def test_what_is_finished_is_not_done_again_and_what_is_missing_comes_out_alike(
    study: Any, plan: Any, extent: Any, done: Path, tmp_path: Path
) -> None:
    """Figures that are taken away are measured again, with their picture or without; the others stay as they are."""
    folder = tmp_path / "again"
    shutil.copytree(done, folder)
    own = study.Study(folder / "tiny-sd3", plan)
    kept, measured, made = (study.Work(method, 64, 0, 0) for method in (study.DIRECT, study.LANCZOS, study.STAGES))
    before = [own.figures(work).read_text() for work in (measured, made)]
    own.figures(measured).unlink()
    own.figures(made).unlink()
    own.path(made).unlink()
    own.figures(kept).write_text(own.figures(kept).read_text().replace("{", '{"mine": 1, ', 1))
    study.main(folder, [plan], extent)
    assert [own.figures(work).read_text() for work in (measured, made)] == before
    assert '"mine"' in own.figures(kept).read_text()


def test_pictures_of_other_settings_are_not_mixed_in(study: Any, plan: Any, extent: Any, done: Path) -> None:
    """A folder belongs to one plan; and sizes double from the first stage."""
    with pytest.raises(ConfigError, match="other settings or weights"):
        study.main(done, [attrs.evolve(plan, restart=0.5)], extent)
    with pytest.raises(ConfigError, match="sizes must be 32 pixels doubled"):
        study.main(done, [plan], attrs.evolve(extent, sizes=(96,)))


def test_a_page_takes_the_tables_between_its_marks(study: Any, done: Path, tmp_path: Path) -> None:
    """What stood there goes, what is around stays; a page without marks is left alone."""
    page = tmp_path / "page.md"
    (tmp_path / "images").mkdir()
    page.write_text(f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n")
    for _ in range(2):
        text = study.report(done, 2, page=page)
        assert page.read_text() == f"before\n{study.BEGIN}\n\n{text}\n{study.END}\nafter\n"
    assert len(list((tmp_path / "images").iterdir())) == 2
    page.write_text("mine\n")
    with pytest.raises(ConfigError, match="must hold the lines"):
        study.report(done, 2, page=page)
    assert page.read_text() == "mine\n"


def test_a_pilot_tries_restarts_on_a_seed_that_is_not_reported(
    study: Any, plan: Any, extent: Any, tmp_path: Path
) -> None:
    """A row a restart and method; what does not depend on the restart is there once."""
    one = attrs.evolve(extent, sizes=(64,), captions=1)
    table = study.main(tmp_path, [plan], one, restarts=(0.5, 0.9))
    found = [line.split(" | ")[1:4] for line in table.splitlines()[2:]]
    assert found == [
        ["64", "Lanczos", ""],
        ["64", "stages", "0.5"],
        ["64", "stages", "0.9"],
        ["64", "stages with guidance", "0.5"],
        ["64", "stages with guidance", "0.9"],
    ]
    assert study.PILOT_SEED not in extent.seeds
    assert {path.stem.rpartition("seed")[2] for path in tmp_path.rglob("stages-64/*.png")} == {str(study.PILOT_SEED)}
    assert study.finished(tmp_path, 1) == []


@pytest.fixture
def by_hand(study: Any, plan: Any, tmp_path: Path) -> Any:
    """Figures of two photographs of 512 and 300 pixels at 1024, of which one seed lacks a method."""
    own = study.Study(tmp_path / "tiny-sd3", plan)
    level = {study.POSSIBLE: 30.0, study.LANCZOS: 20.0, study.DIRECT: 10.0, study.STAGES: 21.0, study.GUIDED: 22.0}
    for method, psnr in level.items():
        for photo in (0, 1):
            for seed in (-1,) if method == study.POSSIBLE else (0, 1, 2):
                if (method, seed) == (study.DIRECT, 2):
                    continue
                octaves = [1.0, (-3.0, 5.0)[method == study.STAGES], -2.0]
                figures = {"PSNR": psnr + photo + seed, "SSIM": 0.5, "octaves": octaves}
                file = own.figures(study.Work(method, 1024, photo, seed))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(figures))
    return study.results(own, 1024, 2)


def test_only_photographs_that_have_an_octave_count_in_it(study: Any, by_hand: Any) -> None:
    """At 1024 pixels neither has the finest one, and one of 300 pixels not the next; without any there is no cell."""
    assert by_hand.columns == ["PSNR", "SSIM", "2-4 px (0)", "4-8 px (1)", "8-16 px (2)"]
    cells = {row[0]: row[1:] for row in study.means(by_hand)}["stages"]
    assert cells[2:] == ["", "5.00", "-2.00 [-2.00, -2.00]"]


def test_only_seeds_that_are_complete_are_reported(study: Any, by_hand: Any) -> None:
    """The third seed has no direct pictures: the mean is that of the first two."""
    assert by_hand.seeds == (0, 1)
    assert by_hand.values[study.DIRECT][:, 0].tolist() == [10.5, 11.5]


def test_an_octave_is_better_when_it_is_nearer_to_that_of_the_photograph(study: Any, by_hand: Any) -> None:
    """5 dB too much is farther away than 3 dB too little; what an interval does not decide is said to be so."""
    found = {row[0]: row[1:] for row in study.differences(by_hand)}["stages - direct"]
    assert found[0] == "+11.00 [+11.00, +11.00]"
    assert found[3] == "+2.00"
    assert next(iter(study.verdicts(by_hand))) == (
        "- *stages* against *direct*: better in PSNR; undecided in SSIM, 2-4 px, 4-8 px, 8-16 px."
    )


def test_a_wave_lies_in_the_octave_of_its_period_and_blur_takes_fine_ones_first(study: Any) -> None:
    """Waves of 3, 6 and 12 pixels lie in the three octaves; blur lowers each less than the finer."""
    across = np.arange(96)[None].repeat(96, 0)
    waves = [torch.from_numpy(128 + 100 * np.sin(2 * np.pi * across / length)) for length in (3, 6, 12)]
    found = [study.octave_energy(wave.round().to(torch.uint8).expand(3, 96, 96)).argmax() for wave in waves]
    assert found == [0, 1, 2]
    noise = np.random.default_rng(0).normal(128, 40, (96, 96))
    pictures = [ndimage.gaussian_filter(noise, sigma) for sigma in (0, 1)]
    sharp, soft = (torch.from_numpy(p.clip(0, 255).astype(np.uint8)).expand(3, 96, 96) for p in pictures)
    lost = study.octave_energy(soft) - study.octave_energy(sharp)
    assert (lost < 0).all()
    assert (np.diff(lost) > 3).all()


def test_a_picture_is_measured_against_its_photograph(study: Any) -> None:
    """An error of one level everywhere is 48.13 dB; half the contrast is 6 dB less in every octave."""
    drawn = np.random.default_rng(0).integers(64, 192, (3, 64, 64)).astype(np.uint8)
    photograph = torch.from_numpy(drawn)
    brighter = study.measured(photograph + 1, photograph)
    assert brighter["PSNR"] == pytest.approx(20 * np.log10(255))
    assert brighter["SSIM"] == pytest.approx(1, abs=1e-3)
    assert brighter["octaves"] == pytest.approx([0] * 3, abs=1e-2)
    grey = photograph[:1].expand(3, -1, -1)
    half = ((grey.float() - 128) / 2 + 128).to(torch.uint8)
    assert study.measured(half, grey)["octaves"] == pytest.approx([-6.02] * 3, abs=0.1)


def test_photographs_are_cut_as_the_training_did(study: Any) -> None:
    """The short side is resized with Lanczos, and the middle cut out."""
    photo = next(place for place, one in enumerate(study.PHOTOS) if one.id == "coffee")  # 600 x 400
    source = study.create("dataset", "sample-photos")[photo].source
    resized = open_picture(source).resize((96, 64), Image.Resampling.LANCZOS).crop((16, 0, 80, 64))
    off = study.photograph(photo, 64).int() - to_tensor(resized).int()
    assert off.abs().max() <= 2
    assert study.own_side(photo) == 400


def test_the_interval_is_that_of_means_over_captions(study: Any) -> None:
    """As wide as scipy's bootstrap, a little more for being few; one caption has none, and none no mean."""
    drawn = np.random.default_rng(1).normal(2, 1, 400)
    mean, (low, high) = study.mean_with_interval(np.append(drawn, np.nan))
    expected = stats.bootstrap((drawn,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert (mean, low, high) == pytest.approx((drawn.mean(), expected.low, expected.high), abs=0.02)
    assert study.mean_with_interval(np.array([3.0, np.nan])) == (3, None)
    assert np.isnan(study.mean_with_interval(np.array([np.nan]))[0])


def test_the_command_line_names_every_setting_of_a_plan(study: Any) -> None:
    """So that each can be tried."""
    options = study.options(
        ["out", "--model", "tiny-flux", "--restart", "0.6", "--steps", "20", "--pilot", "0.5", "0.8"]
    )
    assert (options.folder, options.model, options.pilot) == (Path("out"), ["tiny-flux"], [0.5, 0.8])
    assert study.plans(options) == [study.Plan("tiny-flux", restart=0.6, steps=20)]
    assert [plan.model for plan in study.plans(study.options([]))] == ["tiny-sd3", "tiny-flux"]
