"""Intervals over pictures: they are SciPy's for means, hold the truth as often as they say, and draw pictures whole."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from attrs import define, field, frozen
from torch import Tensor

from d4k import __version__, create
from d4k.errors import ConfigError, DataError
from d4k.evaluation import statistics
from d4k.evaluation.statistics import interval_of, resampled_figures, score_rows


@define(slots=False)
class Mean:
    """The mean of the first column, by `score` alone."""

    scale: float = 1.0
    needs: frozenset[str] = frozenset({"image"})
    higher_is_better: bool | None = True
    unit: str = "levels"

    def score(self, rows: Tensor, references: Tensor | None = None) -> Any:
        return float(rows[:, 0].mean()) * self.scale


@define(slots=False)
class WeightedMean(Mean):
    """The same at once for all resamples; remembers how many weights it saw."""

    packages: ClassVar[tuple[str, ...]] = ("scipy", "no-such-package")
    seen: list[tuple[int, ...]] = field(factory=list, init=False)

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:
        self.seen.append(tuple(weights.shape))
        return weights @ rows[:, 0].double() / weights.sum(1) * self.scale

    def remarks(self, count: int, references: int) -> list[str]:
        return [f"{count} against {references}"]


@define(slots=False)
class Ratio(Mean):
    """A ratio of sums, with the reciprocal as a detail."""

    def score(self, rows: Tensor, references: Tensor | None = None) -> Any:
        top, bottom = rows.sum(0).tolist()
        return {"value": top / bottom, "reciprocal": bottom / top}


@define(slots=False)
class Frechet(Mean):
    """The Frechet distance of two normal distributions of a few dimensions."""

    needs: frozenset[str] = frozenset({"image", "references"})

    def score(self, rows: Tensor, references: Tensor | None = None) -> Any:
        assert references is not None
        return frechet(rows.numpy(), references.numpy())


def frechet(ours: Any, theirs: Any) -> float:
    here, there = np.cov(ours.T, bias=True), np.cov(theirs.T, bias=True)
    root = np.sqrt(np.maximum(np.linalg.eigvals(here @ there).real, 0)).sum()
    return float(((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(here) + np.trace(there) - 2 * root)


def single(values: Any) -> list[Tensor]:
    """One row a picture."""
    return [torch.as_tensor(np.atleast_1d(value), dtype=torch.float64)[None] for value in values]


def coverage(metric: Mean, sample: Callable[[Any], Any], truth: float, trials: int) -> float:
    """How often the interval of a set holds the truth of the distribution that it is from."""
    held = 0
    for trial in range(trials):
        rows = single(sample(np.random.default_rng(trial)))
        low, high = score_rows("x", metric, rows, resamples=200, seed=trial).interval or (0, 0)
        held += low <= truth <= high
    return held / trials


# --- against SciPy


@pytest.mark.parametrize("metric", [Mean(), WeightedMean()])
def test_interval_of_a_mean_is_the_percentile_bootstrap_of_scipy(metric: Mean) -> None:
    """To the noise of the draws, on skewed values; the centring changes nothing."""
    values = np.random.default_rng(1).exponential(size=60)
    score = score_rows("mean", metric, single(values), resamples=4000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert score.value == pytest.approx(values.mean())
    assert score.interval == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert theirs.high - theirs.low > 0.4


def test_weighted_scores_and_repeated_rows_give_one_interval() -> None:
    """The resamples are the same, and so are the scores."""
    rows = [torch.rand(k, 1, dtype=torch.float64) for k in (1, 3, 2, 5)]
    assert score_rows("m", WeightedMean(), rows).interval == pytest.approx(score_rows("m", Mean(), rows).interval)


# --- coverage


def test_intervals_of_means_hold_the_truth_19_times_of_20() -> None:
    """40 pictures of uniform values: 200 sets."""
    assert 0.92 < coverage(WeightedMean(), lambda rng: rng.uniform(size=40), 0.5, trials=200) < 0.98


def test_intervals_of_ratios_of_sums_hold_the_truth_19_times_of_20() -> None:
    """As the compression ratio: two columns that depend on each other."""

    def sample(rng: Any) -> Any:
        top = rng.uniform(1, 3, 40)
        return np.stack([top, top * rng.uniform(0.2, 0.6, 40)], 1)

    assert 0.92 < coverage(Ratio(), sample, 1 / 0.4, trials=150) < 0.98


def test_intervals_of_a_frechet_distance_hold_what_so_many_pictures_give_on_average() -> None:
    """Though it is biased in every resample: the plain percentiles of 60 sets hold it far too seldom."""
    references = single(np.random.default_rng(999).normal(size=(400, 10)))
    theirs = torch.cat(references).numpy()

    def sample(number: int) -> Any:
        return np.random.default_rng(number).normal(0.3, 1.0, (40, 10))

    truth = float(np.mean([frechet(sample(number), theirs) for number in range(5000, 5400)]))
    moved = plain = 0
    for number in range(60):
        rows = single(sample(number))
        drawn = resampled_figures("f", Frechet(), rows, references, resamples=100, seed=number)["f"]
        low, high = interval_of(drawn, frechet(sample(number), theirs))
        moved += low <= truth <= high
        low, high = np.percentile(drawn, [2.5, 97.5])
        plain += low <= truth <= high
    assert moved / 60 > 0.9
    assert plain / 60 < 0.75


def test_a_biased_statistic_lies_inside_its_own_interval() -> None:
    """A Frechet distance of a set from the same distribution, near its least: every resample is farther away."""
    rng = np.random.default_rng(0)
    ours, references = single(rng.normal(size=(30, 6))), single(rng.normal(size=(500, 6)))
    score = score_rows("f", Frechet(), ours, references, resamples=200)
    drawn = resampled_figures("f", Frechet(), ours, references, resamples=200, seed=0)["f"]
    assert np.percentile(drawn, 2.5) > score.value
    assert score.interval is not None
    assert score.interval[0] < score.value < score.interval[1]
    assert score.interval[1] - score.interval[0] == pytest.approx(np.diff(np.percentile(drawn, [2.5, 97.5]))[0])
    assert score.references == 500


# --- what is drawn


def test_rows_of_a_picture_are_drawn_together() -> None:
    """Two pictures of 50 equal rows: the mean of a resample is that of one picture, or of both, never in between."""
    rows = [torch.zeros(50, 1), torch.ones(50, 1)]
    for metric in (Mean(), WeightedMean()):
        drawn = resampled_figures("m", metric, rows, resamples=100, seed=0)["m"]
        assert set(drawn.tolist()) == {0.0, 0.5, 1.0}


def test_pictures_of_a_group_are_drawn_together() -> None:
    """Four pictures of two prompts."""
    drawn = resampled_figures("m", Mean(), single([0, 1, 0, 1]), resamples=100, seed=0, groups=[5, 2, 5, 2])["m"]
    assert set(drawn.tolist()) == {0.0, 0.5, 1.0}


def test_the_seed_decides_the_draws_and_blocks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal seeds give equal intervals, whatever is held at once; another seed gives another."""
    rows, metric = single(range(20)), WeightedMean()
    first = score_rows("m", metric, rows, resamples=100)
    assert metric.seen == [(100, 20)]
    monkeypatch.setattr(statistics, "BLOCK", 20 * 30)
    assert score_rows("m", metric, rows, resamples=100).interval == pytest.approx(first.interval, rel=1e-12)
    assert metric.seen[1:] == [(30, 20), (30, 20), (30, 20), (10, 20)]
    assert score_rows("m", metric, rows, resamples=100, seed=1).interval != first.interval


def test_sets_of_one_size_are_drawn_alike() -> None:
    """A constant difference of two sets stays constant in every resample."""
    one = resampled_figures("m", Mean(), single(range(9)), resamples=50, seed=3)["m"]
    other = resampled_figures("m", WeightedMean(), single(np.arange(9) + 7), resamples=50, seed=3)["m"]
    assert other - one == pytest.approx(np.full(50, 7.0))


# --- what the score says


def test_details_have_intervals_too() -> None:
    """Those of the reciprocal are the reciprocal ones, nearly; the value has the name that was asked for."""
    rng = np.random.default_rng(0)
    score = score_rows("mine", Ratio(), single(rng.uniform(1, 2, (100, 2))))
    assert list(score.details) == list(score.detail_intervals) == ["reciprocal"]
    low, high = score.interval or (0, 0)
    assert score.detail_intervals["reciprocal"] == pytest.approx((1 / high, 1 / low), rel=0.01)
    assert score.metric == "mine"


def test_details_beside_weighted_scores_have_intervals() -> None:
    """A metric that weights its score and has details as well."""

    @define(slots=False)
    class Both(WeightedMean):
        def score(self, rows: Tensor, references: Tensor | None = None) -> Any:
            return {"mean": float(rows[:, 0].mean()), "double": 2 * float(rows[:, 0].mean())}

    score = score_rows("m", Both(), single(range(10)))
    assert score.interval is not None
    assert score.detail_intervals["double"] == pytest.approx([2 * end for end in score.interval])


def test_settings_versions_and_remarks_are_those_of_the_metric() -> None:
    """Options with the number of resamples; the packages that it names, also one that is gone."""
    score = score_rows("m", WeightedMean(scale=2.0), single([1, 2]), resamples=10)
    assert score.settings == {
        "scale": 2.0,
        "needs": frozenset({"image"}),
        "higher_is_better": True,
        "unit": "levels",
        "resamples": 10,
    }
    assert score.versions == {
        "d4k": __version__,
        "torch": metadata.version("torch"),
        "scipy": metadata.version("scipy"),
        "no-such-package": "?",
    }
    assert score.remarks == ("2 against 0",)
    assert (score.unit, score.count, score.higher_is_better) == ("levels", 2, True)


def test_versions_name_the_plugin_of_a_registered_metric() -> None:
    """Whatever the score is called."""
    score = score_rows("mine", create("metric", "glcm"), single([[0.5, 3.0], [0.6, 4.0]]))
    assert score.versions["d4k-glcm"] == metadata.version("d4k-glcm")


def test_one_picture_has_no_interval_and_the_score_says_so() -> None:
    """There is nothing to draw from."""
    score = score_rows("m", Mean(), single([3]))
    assert (score.value, score.interval, score.count) == (3.0, None, 1)
    assert score.remarks == ("No interval: it takes two pictures or more.",)


def test_a_score_that_is_not_finite_everywhere_has_no_interval() -> None:
    """Such as a ratio whose denominator can vanish; the remark names it."""

    @frozen
    class Fragile(Mean):
        def score(self, rows: Tensor, references: Tensor | None = None) -> Any:
            return float(1 / rows.sum())

    score = score_rows("m", Fragile(), single([0, 1]))
    assert (score.value, score.interval) == (1.0, None)
    assert score.remarks == ("No interval of m: it is not finite in every resample.",)


def test_intervals_can_be_left_out() -> None:
    """With no resamples nothing is drawn."""
    metric = WeightedMean()
    assert score_rows("m", metric, single([1, 2, 3]), resamples=0).interval is None
    assert metric.seen == []


def test_a_figure_of_the_whole_set_has_no_interval() -> None:
    """Its rows are empty: there is nothing to draw."""

    @frozen
    class Whole(Mean):
        def score(self, rows: Tensor, references: Tensor | None = None) -> Any:
            return 7.0

    score = score_rows("m", Whole(), [torch.zeros(1, 0)] * 3)
    assert (score.value, score.interval) == (7.0, None)


def test_what_cannot_be_scored_is_refused() -> None:
    """No pictures, no references, a negative number of resamples."""
    with pytest.raises(DataError, match="m: no picture was measured"):
        score_rows("m", Mean(), [])
    with pytest.raises(ConfigError, match="resamples must be a whole number of at least 0, got -1"):
        score_rows("m", Mean(), single([1, 2]), resamples=-1)
    with pytest.raises(ConfigError, match="f compares with a set of reference pictures, and there is none"):
        score_rows("f", Frechet(), single([[1, 2], [2, 3]]))


def test_interval_is_the_middle_95_percent_of_the_moved_resamples() -> None:
    """Counted by hand: of -100 to 100, 2.5 % are 5 on either side."""
    assert interval_of(np.arange(-100.0, 101.0) + 17, 3.0) == pytest.approx((-92.0, 98.0))
