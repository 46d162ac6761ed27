from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from d4k_fid import kernel
from d4k_fid.kernel import kernel_distances


def rows(count, seed, shift=0.0, width=24):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64) + shift


def plain(a, weights, b):
    """The definition in loops: pairs of two different pictures, each as often as its weights say."""
    k = lambda x, y: (float(x @ y) / len(x) + 1) ** 3  # noqa: E731
    n, m = range(len(a)), range(len(b))
    pairs = [(weights[i] * weights[j], k(a[i], a[j])) for i in n for j in n if i != j]
    near = sum(w * value for w, value in pairs) / sum(w for w, _ in pairs)
    far = np.mean([k(b[i], b[j]) for i in m for j in m if i != j])
    between = sum(weights[i] * np.mean([k(a[i], y) for y in b]) for i in n) / sum(weights)
    return near + far - 2 * between


def test_the_distance_is_that_of_torch_fidelity_over_all_pairs():
    """Which it computes with one subset of everything."""
    a, b = rows(40, 0, shift=0.3), rows(40, 1)
    expected = kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=40, verbose=False)
    score = kernel_distances(a, torch.ones(1, 40), b).item()
    assert score == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-10)


def test_the_published_mean_over_subsets_estimates_the_same():
    """Within four standard errors of its 400 subsets of 20."""
    a, b = rows(60, 0, shift=0.3), rows(50, 1)
    found = kid_features_to_metric(a, b, kid_subsets=400, kid_subset_size=20, verbose=False)
    error = found["kernel_inception_distance_std"] / 400**0.5
    assert kernel_distances(a, torch.ones(1, 60), b).item() == pytest.approx(
        found["kernel_inception_distance_mean"], abs=4 * error
    )


@pytest.mark.parametrize("cells", [7, 2**22])
def test_weights_count_pairs_of_different_pictures(cells, monkeypatch):
    """As loops over all pairs do, in one block or in many."""
    monkeypatch.setattr(kernel, "CELLS", cells)
    a, b = rows(6, 0), rows(5, 1)
    weights = torch.tensor([[1.0, 1, 1, 1, 1, 1], [2, 0, 3, 1, 0, 0], [0, 5, 1, 0, 0, 0]])
    expected = [plain(a.numpy(), counts, b.numpy()) for counts in weights.tolist()]
    assert kernel_distances(a, weights, b).tolist() == pytest.approx(expected, rel=1e-12)


def test_resamples_scatter_around_the_score():
    """Their mean is the score: copies of a picture are not paired with themselves."""
    a, b = rows(100, 0, shift=0.1), rows(100, 1)
    weights = torch.from_numpy(np.random.default_rng(0).multinomial(100, [0.01] * 100, 500)).double()
    scores, score = kernel_distances(a, weights, b), kernel_distances(a, torch.ones(1, 100), b).item()
    assert scores.mean().item() == pytest.approx(score, abs=4 * scores.std().item() / 500**0.5)


def test_a_resample_of_one_picture_is_finite():
    """Where there are no pairs of different pictures, a picture is paired with its copy."""
    a, b = rows(3, 0), rows(5, 1)
    again = a[:1].repeat(3, 1) + torch.tensor([[0.0], [1e-9], [-1e-9]])
    score = kernel_distances(a, torch.tensor([[3.0, 0, 0]]), b).item()
    assert score == pytest.approx(plain(again.numpy(), [1, 1, 1], b.numpy()), rel=1e-6)
