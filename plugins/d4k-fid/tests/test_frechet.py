from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from d4k_fid.frechet import frechet_distances

SHAPES = [(40, 60, 16), (20, 30, 100), (20, 200, 64), (200, 20, 64)]


def rows(count, width, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 2, width) + shift


def draws(count, resamples=5):
    return torch.from_numpy(np.random.default_rng(0).multinomial(count, [1 / count] * count, resamples)).double()


def plain(a, b):
    """The definition, with scipy's matrix root."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(0) - b.mean(0)
    return shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(scipy.linalg.sqrtm(first @ second).real)


def one(a, b):
    return frechet_distances(a, torch.ones(1, len(a)), b).item()


@pytest.mark.parametrize(("count", "references", "width"), SHAPES)
def test_the_distance_is_that_of_torch_fidelity(count, references, width):
    """Also with fewer rows than dimensions, where its own root of a singular matrix is exact to seven digits."""
    a, b = rows(count, width, 0, shift=0.2), rows(references, width, 1)
    expected = fid_statistics_to_metric(*map(fid_features_to_statistics, (a, b)), verbose=False)
    assert one(a, b) == pytest.approx(expected["frechet_inception_distance"], rel=1e-7)


def test_the_distance_is_the_definition_with_a_matrix_root():
    """`scipy.linalg.sqrtm`, where covariances have full rank."""
    a, b = rows(60, 12, 0, shift=0.2), rows(80, 12, 1)
    assert one(a, b) == pytest.approx(plain(a.numpy(), b.numpy()), rel=1e-10)


@pytest.mark.parametrize(("count", "references", "width"), SHAPES)
def test_weights_count_as_repeated_rows(count, references, width):
    """Each of several resamples equals the distance of the set written out."""
    a, b, weights = rows(count, width, 0, shift=0.2), rows(references, width, 1), draws(count)
    scores = frechet_distances(a, weights, b)
    for score, counts in zip(scores, weights, strict=True):
        assert score.item() == pytest.approx(one(a.repeat_interleave(counts.long(), 0), b), rel=1e-8)


def test_a_set_has_no_distance_from_itself():
    """To fourteen digits of the spread, with 20 rows in 200 dimensions, far from the origin."""
    a = rows(20, 200, 0, shift=100.0)
    assert abs(one(a, a)) < 1e-11 * a.var(0).sum()


def test_few_rows_are_scored_without_losing_digits():
    """Of two sets that lie in a plane of a 300-dimensional space, as far apart as in the plane itself."""
    flat, other = rows(40, 2, 0, shift=1.0), rows(50, 2, 1)
    basis = torch.linalg.qr(rows(300, 2, 2)).Q
    assert one(flat @ basis.T, other @ basis.T) == pytest.approx(one(flat, other), rel=1e-10)


def test_a_resample_of_one_picture_has_the_spread_of_the_references():
    """Its covariance is zero."""
    a, b = rows(4, 8, 0), rows(30, 8, 1)
    expected = (a[0] - b.mean(0)).square().sum() + b.var(0).sum()
    scores = frechet_distances(a, torch.tensor([[4.0, 0, 0, 0], [1, 1, 1, 1]]), b)
    assert scores[0].item() == pytest.approx(expected.item(), rel=1e-12)


def test_rows_in_single_precision_are_scored_in_double():
    """The result is that of the same numbers in double."""
    a, b = rows(20, 50, 0).float(), rows(30, 50, 1).float()
    assert one(a, b) == one(a.double(), b.double())
