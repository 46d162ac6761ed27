"""The ablation of the losses, in seconds: it goes on where it stopped, and its parts measure what they say."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from d4k import ConfigError
from d4k.images import picture_size

EXAMPLE = Path(__file__).parents[1] / "examples" / "ablation.py"


@pytest.fixture(scope="module")
def example() -> Any:
    """The names of the script."""
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


@pytest.fixture(scope="module")
def short(example: Any) -> Any:
    """A plan of seconds."""
    return example.Plan(
        photographs=2, size=64, soften_steps=1, steps=2, batch=2, seeds=1, levels=(0.5,), sampling_steps=1
    )


@pytest.fixture(scope="module")
def done(example: Any, short: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs of the short plan."""
    folder = tmp_path_factory.mktemp("ablation") / "results"
    example.main(folder, short)
    return folder


def test_it_leaves_a_row_and_an_interval_for_every_loss_and_a_plot(example: Any, done: Path) -> None:
    """Means with the starting points above them, then differences from mse."""
    means, differences, control = (done / "table.md").read_text().strip().split("\n\n")
    rows = [line.split(" | ")[0].removeprefix("| ") for line in means.splitlines()[2:]]
    assert rows == ["photographs", "through the autoencoder", "softened model", *example.losses()]
    assert [line.count("[") for line in differences.splitlines()[2:]] == [7] * 5
    assert control.startswith("Largest relative difference")
    assert picture_size(done / "ablation.png")[0] > 1000


def test_what_is_finished_is_not_done_again_and_what_is_missing_comes_out_alike(
    example: Any, short: Any, done: Path, tmp_path: Path
) -> None:
    """A run that is taken away is made again, to the same numbers; the others stay as they are."""
    folder = tmp_path / "again"
    shutil.copytree(done, folder)
    ablation = example.Ablation(folder, short)
    missing, kept = ablation.run("wavelet-mask", 0), ablation.run("mse", 0)
    before = missing.read_text()
    missing.unlink()
    kept.write_text(kept.read_text().replace("{", '{"mine": 1, ', 1))
    example.main(folder, short)
    assert missing.read_text() == before
    assert '"mine"' in kept.read_text()


def test_runs_of_another_plan_are_not_mixed_in(example: Any, done: Path) -> None:
    """A folder belongs to one plan."""
    with pytest.raises(ConfigError, match="another plan"):
        example.main(done, example.Plan(photographs=2))


def test_a_control_that_differs_is_an_error(example: Any, short: Any, done: Path, tmp_path: Path) -> None:
    """The published form and sigma^2 * MSE train alike here, and a history of another loss is noticed."""
    assert example.check_control(example.Ablation(done, short)) < 1e-4
    folder = tmp_path / "wrong"
    shutil.copytree(done, folder)
    ablation = example.Ablation(folder, short)
    shutil.copy(ablation.run("mse", 0), ablation.run("published", 0))
    with pytest.raises(AssertionError, match="the published form is not"):
        example.check_control(ablation)


def test_blur_takes_energy_from_fine_octaves_and_a_sine_is_found_in_its_own(example: Any) -> None:
    """A wave of 3 pixels lies in the finest octave, one of 12 in the coarsest; blur lowers each less than the finer."""
    across = torch.arange(96.0).expand(3, 96, 96)
    waves = torch.stack([torch.sin(2 * torch.pi * across / length) for length in (12, 6, 3)])
    assert example.octave_energy(waves).argmax(1).tolist() == [0, 1, 2]
    noise = np.random.default_rng(0).normal(size=(1, 3, 96, 96)).astype(np.float32)
    soft = ndimage.gaussian_filter(noise, (0, 0, 1.5, 1.5))
    lost = example.octave_energy(torch.from_numpy(soft)) - example.octave_energy(torch.from_numpy(noise))
    assert (lost[0] < 0).all()
    assert (lost[0].diff() < -3).all()


def test_psnr_is_that_of_pixels_of_which_white_is_2_above_black(example: Any) -> None:
    """An error of one hundredth of the range everywhere is 40 dB."""
    black = -torch.ones(1, 3, 4, 4)
    assert example.psnr(black + 0.02, black) == pytest.approx([40.0])


def test_the_interval_covers_what_seeds_and_photographs_vary_by(example: Any) -> None:
    """It is that of the mean of as many numbers where only seeds vary, or only photographs; constant ones have none."""
    drawn = np.random.default_rng(1).normal(2, 1, 40)
    expected = stats.bootstrap((drawn,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    for differences in (np.repeat(drawn[:, None], 3, 1), np.repeat(drawn[None], 3, 0)):
        assert example.interval(differences) == pytest.approx(tuple(expected), abs=0.03)
    assert example.interval(np.full((3, 4), 0.5)) == pytest.approx((0.5, 0.5))
