"""Comparisons: differences of pairs against SciPy and by hand, and refusals that say what was measured otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.stats
import torch
from attrs import evolve, frozen
from PIL import Image
from torch import Tensor

from d4k.errors import ConfigError, DataError
from d4k.evaluation import Measuring, Subject, compare, measure, read_evaluation, read_systems, write_evaluation
from d4k.evaluation.difference import Comparison, Difference
from d4k.evaluation.significance import holm, signed_rank_test


@frozen
class Grey:
    """Mean grey level."""

    scale: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    higher_is_better: ClassVar[bool | None] = True
    unit: ClassVar[str] = "levels"

    def load(self, device: torch.device) -> None: ...

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        return torch.stack([picture.double().mean()[None] for picture in image])

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean()) * self.scale


@frozen
class Distance(Grey):
    """How far the mean grey level of a set is from that of the references; of sets."""

    needs: ClassVar[frozenset[str]] = frozenset({"image", "references"})
    higher_is_better: ClassVar[bool | None] = False

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        assert references is not None
        return float((rows.mean() - references.mean()).abs())


@frozen
class Neutral(Grey):
    """Neither direction is better."""

    higher_is_better: ClassVar[bool | None] = None


@frozen
class Frechet(Distance):
    """Frechet distance of means and variances of quarters: four rows a picture, of sets."""

    def observe(self, image: Sequence[Tensor]) -> list[Tensor]:  # type: ignore[override]
        return [each.double().mean(0).unfold(0, 4, 4).unfold(1, 4, 4).mean((2, 3)).reshape(4, 1) for each in image]

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        assert references is not None
        spread = rows.std(correction=0) - references.std(correction=0)
        return float((rows.mean() - references.mean()) ** 2 + spread**2)

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:
        assert references is not None
        total = weights.sum(1)
        mean = weights @ rows[:, 0] / total
        spread = (weights @ rows[:, 0] ** 2 / total - mean**2).clamp(min=0).sqrt()
        return (mean - references.mean()) ** 2 + (spread - references.std(correction=0)) ** 2


METRICS: dict[str, Any] = {"grey": Grey()}


def system(
    folder: Path, levels: Sequence[int], prompts: Sequence[str | None], metrics: Any = None, size: int = 8, **more: Any
) -> Path:
    """Pictures of one grey level each, measured."""
    folder.mkdir()
    subjects = []
    for number, (level, prompt) in enumerate(zip(levels, prompts, strict=True)):
        file = folder / f"{number}.png"
        pixels = np.full((size, size, 3), level, np.uint8)
        pixels[0, 0] = number  # no two files are alike
        Image.fromarray(pixels).save(file)
        subjects.append(Subject(f"{number}", file, prompt))
    measure(subjects, metrics or METRICS, Measuring(output=folder, name=folder.name, resamples=0, workers=1, **more))
    return folder


def words(count: int) -> list[str | None]:
    return [f"prompt {number}" for number in range(count)]


def test_difference_interval_and_test_are_those_of_scipy(tmp_path: Path) -> None:
    """Pictures in another order in the other system; the difference is of b less a."""
    rng = np.random.default_rng(0)
    first = rng.integers(50, 150, 30)
    second = first + rng.integers(-4, 9, 30)
    order = rng.permutation(30)
    a = system(tmp_path / "a", first, words(30))
    b = system(tmp_path / "b", second[order], [words(30)[place] for place in order])
    (found,) = compare([a, b], metrics=METRICS, resamples=2000).differences
    grey = [{p.prompt: p.values["grey"] for p in read_evaluation(folder).pictures} for folder in (a, b)]
    paired = np.array([grey[1][prompt] - grey[0][prompt] for prompt in grey[0]])
    theirs = scipy.stats.bootstrap(
        (paired,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.difference == pytest.approx(paired.mean())
    wider = scipy.stats.t.ppf(0.975, 29) / scipy.stats.norm.ppf(0.975) * (30 / 29) ** 0.5
    ends = paired.mean() + wider * (np.array([theirs.low, theirs.high]) - paired.mean())
    assert found.interval == pytest.approx(tuple(ends), abs=0.12)
    assert found.p_value == pytest.approx(scipy.stats.wilcoxon(paired).pvalue)
    assert (found.wins, found.losses, found.ties) == ((paired > 0).sum(), (paired < 0).sum(), (paired == 0).sum())
    assert (found.a, found.b, found.count, found.real, found.better) == ("a", "b", 30, True, "b")


def test_the_interval_of_few_pairs_is_that_of_students_t(tmp_path: Path) -> None:
    """Of 12 pairs plain percentiles would be an eighth narrower."""
    rng = np.random.default_rng(5)
    first = rng.integers(50, 150, 12)
    a = system(tmp_path / "a", first, words(12))
    b = system(tmp_path / "b", first + rng.integers(-20, 21, 12), words(12))
    (found,) = compare([a, b], metrics=METRICS, resamples=20000).differences
    grey = [np.array([picture.values["grey"] for picture in read_evaluation(folder).pictures]) for folder in (a, b)]
    theirs = scipy.stats.ttest_1samp(grey[1] - grey[0], 0).confidence_interval()
    assert found.interval == pytest.approx((theirs.low, theirs.high), abs=0.05 * (theirs.high - theirs.low))


def test_a_constant_shift_is_certain_though_the_scores_overlap(tmp_path: Path) -> None:
    """The same prompts are drawn for both: what prompts do to both cancels."""
    levels = [10, 60, 110, 160, 210, 240]
    a, b = system(tmp_path / "a", levels, words(6)), system(tmp_path / "b", [v + 2 for v in levels], words(6))
    (found,) = compare([a, b], metrics=METRICS).differences
    expected = 2 * 63 / 64
    assert found.interval == pytest.approx((expected, expected))
    assert found.real
    assert (found.wins, found.p_value) == (6, 0.03125)


def test_equal_systems_do_not_differ(tmp_path: Path) -> None:
    """All ties, p of 1, an interval that is 0."""
    a, b = (system(tmp_path / name, [5, 90, 200], words(3)) for name in "ab")
    (found,) = compare([a, b], metrics=METRICS).differences
    assert (found.difference, found.interval, found.p_value, found.ties, found.real) == (0, (0, 0), 1.0, 3, False)
    assert found.better is None


def test_set_metrics_are_scored_anew_on_the_pairs_of_both(tmp_path: Path) -> None:
    """No test and no wins; the pictures without partner do not count, and lower is better."""
    references = []
    for number in range(3):
        Image.new("RGB", (8, 8), (100 + number,) * 3).save(tmp_path / f"r{number}.png")
        references.append(tmp_path / f"r{number}.png")
    metrics = {"distance": Distance()}
    a = system(tmp_path / "a", [150, 160, 170, 250], words(4), metrics, references=references)
    b = system(tmp_path / "b", [110, 120, 130], words(3), metrics, references=references)
    result = compare([a, b], metrics=metrics)
    (found,) = result.differences
    assert found.value_a == pytest.approx(59 - 60 / 64, abs=2.5)
    assert found.difference == pytest.approx(-40, abs=1)
    assert (found.p_value, found.wins, found.losses, found.count, found.better) == (None, 0, 0, 3, "b")
    assert "1 of 4 pictures of a have no partner in b and do not count here: 3.png." in result.remarks


def test_rows_of_a_picture_are_drawn_together_and_for_both_systems(tmp_path: Path) -> None:
    """A Frechet distance of four rows a picture, against the bootstrap of SciPy over pairs of pictures."""
    rng = np.random.default_rng(3)
    reference = []
    for number in range(4):
        Image.new("RGB", (8, 8), (110 + 9 * number,) * 3).save(tmp_path / f"r{number}.png")
        reference.append(tmp_path / f"r{number}.png")
    metrics = {"frechet": Frechet()}
    first = rng.integers(60, 180, 25)
    second = (first + 120) // 2 + rng.integers(-5, 6, 25)
    a = system(tmp_path / "a", first, words(25), metrics, references=reference)
    b = system(tmp_path / "b", second, words(25), metrics, references=reference)
    (found,) = compare([a, b], metrics=metrics, resamples=4000).differences
    rows = [np.stack([row.numpy()[:, 0] for row in each.rows("frechet")]) for each in read_systems([a, b])]
    assert rows[0].shape == (25, 4)
    against = np.concatenate([row.numpy() for row in read_systems([a])[0].references("frechet")])

    def distance(values: Any) -> float:
        return float((values.mean() - against.mean()) ** 2 + (values.std() - against.std()) ** 2)

    def difference(places: Any) -> float:
        return distance(rows[1][places.astype(int)]) - distance(rows[0][places.astype(int)])

    theirs = scipy.stats.bootstrap(
        (np.arange(25),), difference, n_resamples=4000, vectorized=False, method="percentile",
        rng=np.random.default_rng(1),
    )  # fmt: skip
    moved = theirs.bootstrap_distribution - theirs.bootstrap_distribution.mean() + difference(np.arange(25))
    assert found.difference == pytest.approx(difference(np.arange(25)))
    tail = 100 * scipy.stats.norm.sf(scipy.stats.t.ppf(0.975, 24) * (25 / 24) ** 0.5)
    ends = np.percentile(moved, [tail, 100 - tail])
    assert found.interval == pytest.approx(tuple(ends), abs=0.06 * np.ptp(ends))
    assert (found.p_value, found.wins, found.count, found.real, found.better) == (None, 0, 25, True, "b")


def test_seeds_of_a_prompt_are_paired_in_their_order_and_the_rest_is_left_out(tmp_path: Path) -> None:
    """The first cat with the first cat; b has a cat less, a dog more, and an owl that nobody asked a for."""
    a = system(tmp_path / "a", [10, 20, 30, 100, 110], ["cat", "cat", "cat", "dog", "dog"])
    b = system(tmp_path / "b", [104, 9, 11, 109, 23, 120], ["dog", "owl", "cat", "dog", "cat", "dog"])
    result = compare([a, b], metrics=METRICS)
    (found,) = result.differences
    assert (found.count, found.wins, found.losses) == (4, 3, 1)  # 10-11, 20-23, 100-104, 110-109
    assert found.difference == pytest.approx((1 + 3 + 4 - 1) / 4, abs=0.1)
    assert found.p_value == scipy.stats.wilcoxon([2.0, 1.5]).pvalue
    assert result.remarks[:2] == (
        "1 of 5 pictures of a have no partner in b and do not count here: 2.png.",
        "2 of 6 pictures of b have no partner in a and do not count here: 1.png, 5.png.",
    )


def test_pictures_of_one_prompt_are_no_independent_evidence(tmp_path: Path) -> None:
    """Two prompts of four pictures: the test sees two differences, the interval draws two groups."""
    prompts: list[str | None] = ["cat"] * 4 + ["dog"] * 4
    a = system(tmp_path / "a", [50] * 8, prompts)
    b = system(tmp_path / "b", [60] * 4 + [70] * 4, prompts)
    (found,) = compare([a, b], metrics=METRICS).differences
    assert found.p_value == pytest.approx(0.5)
    assert found.interval == pytest.approx((10 * 63 / 64, 20 * 63 / 64), abs=0.6)
    assert (found.wins, found.count) == (8, 8)


def test_metrics_without_direction_have_no_winners(tmp_path: Path) -> None:
    metrics = {"n": Neutral()}
    a, b = (system(tmp_path / name, levels, words(3), metrics) for name, levels in (("a", [1, 2, 3]), ("b", [9, 9, 9])))
    (found,) = compare([a, b], metrics=metrics).differences
    assert (found.wins, found.losses, found.ties, found.better, found.real) == (0, 0, 0, None, True)


def test_the_first_is_compared_with_every_other_or_each_with_each(tmp_path: Path) -> None:
    """With several tests p is adjusted, and a remark says so."""
    folders = [
        system(tmp_path / name, [v + shift for v in (9, 80, 150, 30)], words(4)) for shift, name in enumerate("abc")
    ]
    result = compare(folders, metrics=METRICS)
    assert [(d.a, d.b) for d in result.differences] == [("a", "b"), ("a", "c")]
    assert [d.p_adjusted for d in result.differences] == [2 * d.p_value for d in result.differences if d.p_value]
    assert result.remarks[-1].startswith("2 differences are shown")
    each = compare(folders, metrics=METRICS, all_pairs=True)
    assert [(d.a, d.b) for d in each.differences] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert each.find("grey", "b", "c") is each.differences[2]


def test_other_settings_are_refused_by_name_and_values(tmp_path: Path) -> None:
    a = system(tmp_path / "a", [1, 2], words(2))
    b = system(tmp_path / "b", [1, 2], words(2), {"grey": Grey(2.0)})
    with pytest.raises(ConfigError, match=r"^grey: scale is 1\.0 in a and 2\.0 in b; measure both alike: d4k evaluate"):
        compare([a, b], metrics=METRICS)


def test_other_resamples_are_no_other_setting(tmp_path: Path) -> None:
    """Intervals are computed anew."""
    a, b = (system(tmp_path / name, [1, 2], words(2)) for name in "ab")
    read = read_evaluation(b)
    (score,) = read.scores
    write_evaluation(b, evolve(read, scores=(evolve(score, settings={**score.settings, "resamples": 7}),)))
    assert compare([a, b], metrics=METRICS).differences


def test_too_few_resamples_are_refused(tmp_path: Path) -> None:
    """The interval of one draw is a point, which excludes 0 whatever was measured."""
    a, b = (system(tmp_path / name, [1, 2], words(2)) for name in "ab")
    with pytest.raises(ConfigError, match="^resamples must be a whole number of at least 40, got 39$"):
        compare([a, b], metrics=METRICS, resamples=39)


def test_other_references_are_refused(tmp_path: Path) -> None:
    """Counted, since names say nothing."""
    for number in range(3):
        Image.new("RGB", (8, 8), (100 + number,) * 3).save(tmp_path / f"r{number}.png")
    metrics = {"distance": Distance()}
    a = system(tmp_path / "a", [1, 2], words(2), metrics, references=[tmp_path / "r0.png", tmp_path / "r1.png"])
    b = system(tmp_path / "b", [1, 2], words(2), metrics, references=[tmp_path / "r0.png", tmp_path / "r2.png"])
    with pytest.raises(ConfigError, match=r"different sets of reference pictures \(2 each\); measure both against one"):
        compare([a, b], metrics=metrics)


def test_other_sizes_and_other_versions_are_remarked(tmp_path: Path) -> None:
    a = system(tmp_path / "a", [1, 2], words(2))
    b = system(tmp_path / "b", [1, 2], words(2), size=16)
    read = read_evaluation(b)
    (score,) = read.scores
    write_evaluation(b, evolve(read, scores=(evolve(score, versions={**score.versions, "torch": "1.0"}),)))
    remarks = " ".join(compare([a, b], metrics=METRICS).remarks)
    assert "In 2 of 2 pairs the pictures of a and b have other sizes, such as 8x8 and 16x16 (0.png)" in remarks
    assert f"grey: torch is {torch.__version__.partition('+')[0]}" in remarks


def test_what_cannot_be_compared_is_one_sentence(tmp_path: Path) -> None:
    a = system(tmp_path / "a", [1, 2], ["cat", "dog"])
    b = system(tmp_path / "b", [1, 2], ["owl", "bee"])
    c = system(tmp_path / "c", [1, 2], ["cat", "dog"], {"other": Grey()})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="a and b have no picture in common: they were paired by prompt"):
        compare([a, b], metrics=METRICS)
    with pytest.raises(DataError, match=r"a and c have no metric in common \(a: grey; c: other\)"):
        compare([a, c], metrics=METRICS)
    with pytest.raises(ConfigError, match=r"unknown metric 'grey'.*compare\(\.\.\., metrics=\{'grey': \.\.\.\}\)"):
        compare([a, system(tmp_path / "d", [1, 2], ["cat", "dog"])])
    with pytest.raises(DataError, match="it takes two systems to compare, got 1"):
        compare([a], metrics=METRICS)
    with pytest.raises(DataError, match="is named 2 times"):
        compare([a, a], metrics=METRICS)
    with pytest.raises(DataError, match="holds neither scores.json nor the manifest.json of a benchmark"):
        compare([a, tmp_path / "empty"], metrics=METRICS)
    with pytest.raises(DataError, match="there is no folder"):
        compare([a, tmp_path / "nowhere"], metrics=METRICS)


def test_a_benchmark_stands_for_its_models_and_equal_names_become_folders(tmp_path: Path) -> None:
    """In the order of the manifest."""
    (tmp_path / "bench" / "models").mkdir(parents=True)
    (tmp_path / "bench" / "manifest.json").write_text('{"models": [{"name": "z"}, {"name": "y"}]}')
    for name in "yz":
        system(tmp_path / "bench" / "models" / name, [1, 2], words(2))
    assert [found.name for found in read_systems([tmp_path / "bench"])] == ["z", "y"]
    (tmp_path / "more").mkdir()
    other = system(tmp_path / "more" / "y", [1, 2], words(2))
    names = [found.name for found in read_systems([tmp_path / "bench", other])]
    assert names == ["z", str(tmp_path / "bench" / "models" / "y"), str(other)]


def test_a_picture_that_a_metric_could_not_measure_takes_its_pair_along(tmp_path: Path) -> None:
    """For this metric, and a remark says so."""
    a, b = system(tmp_path / "a", [1, 2, 3], words(3)), system(tmp_path / "b", [5, 5, 200], words(3))
    read = read_evaluation(b)
    write_evaluation(b, evolve(read, pictures=(*read.pictures[:2], evolve(read.pictures[2], keys={}, values={}))))
    result = compare([a, b], metrics=METRICS)
    assert result.differences[0].count == 2
    assert result.differences[0].value_b == pytest.approx((5 * 63 + 0.5) / 64, abs=0.01)
    assert result.remarks[0].startswith("grey: 1 of 3 pairs of a and b do not count")


def test_signed_rank_test_leaves_zeros_out() -> None:
    """As SciPy documents; what cannot be tested has no p."""
    assert signed_rank_test(np.zeros(5)) == 1.0
    assert signed_rank_test(np.array([1.0])) is None
    assert signed_rank_test(np.array([1.0, np.nan, 2.0])) is None
    values = np.array([0.0, 0.0, 1.5, -0.5, 2.5, 3.5, 4.5, 0.75, 6.0, 7.0, 8.0])
    assert signed_rank_test(values) == pytest.approx(scipy.stats.wilcoxon(values, zero_method="wilcox").pvalue)


def test_holm_multiplies_the_least_most_and_keeps_the_order() -> None:
    """By hand: 4 times 0.01, 3 times 0.02, twice 0.02 is less than that, and once 0.5."""
    assert holm([0.02, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_comparisons_find_differences_by_name() -> None:
    found = Difference("m", "a", "b", 1.0, 2.0, 1.0, None, None, 0, 0, 0, 3, False)
    comparison = Comparison(("a", "b"), (found,))
    assert comparison.find("m", "a", "b") is found
    assert comparison.find("m", "b", "a") is None
