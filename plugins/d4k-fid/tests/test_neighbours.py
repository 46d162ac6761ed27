from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from d4k_fid import neighbours
from d4k_fid.neighbours import precisions, recalls


def rows(count, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=generator, dtype=torch.float64) * spread


def ones(rows):
    return torch.ones(1, len(rows))


@pytest.mark.parametrize("cells", [1, 2**22])
@pytest.mark.parametrize(("count", "references"), [(40, 30), (12, 90)])
def test_precision_and_recall_are_those_of_torch_fidelity(count, references, cells, monkeypatch):
    """With three neighbours, in one block or row by row."""
    monkeypatch.setattr(neighbours, "CELLS", cells)
    a, b = rows(count, 0, spread=1.2), rows(references, 1)
    expected = prc_features_to_metric(a, b, verbose=False)
    assert precisions(a, ones(a), b).item() == pytest.approx(expected["precision"], abs=1e-6)
    assert recalls(a, ones(a), b).item() == pytest.approx(expected["recall"], abs=1e-6)
    assert 0 < expected["recall"] < 1
    assert 0 < expected["precision"] < 1


def test_precision_counts_a_picture_as_often_as_its_weight():
    """As the set written out does: the balls of the references are the same."""
    a, b = rows(40, 0, spread=1.2), rows(30, 1)
    weights = torch.from_numpy(np.random.default_rng(0).multinomial(40, [1 / 40] * 40, 3)).double()
    for score, counts in zip(precisions(a, weights, b), weights, strict=True):
        written = a.repeat_interleave(counts.long(), 0)
        assert score.item() == pytest.approx(precisions(written, ones(written), b).item(), abs=1e-12)


@pytest.mark.parametrize("nearest", [3, 64])
def test_recall_of_a_resample_is_that_of_its_different_pictures(nearest, monkeypatch):
    """Whether their neighbours are found among the nearest of the whole set or not."""
    monkeypatch.setattr(neighbours, "NEAREST", nearest)
    a, b = rows(40, 0, spread=1.2), rows(30, 1)
    weights = torch.from_numpy(np.random.default_rng(0).multinomial(40, [1 / 40] * 40, 6)).double()
    scores = recalls(a, weights, b)
    for score, counts in zip(scores, weights, strict=True):
        kept = a[counts > 0]
        assert score.item() == recalls(kept, ones(kept), b).item()
    assert len(set(scores.tolist())) > 1


def test_a_copy_in_a_resample_does_not_shrink_the_balls():
    """Every picture twice is the same set; written out, each ball would reach to the first neighbour only."""
    a, b = rows(40, 0, spread=1.2), rows(60, 1)
    once = recalls(a, ones(a), b).item()
    assert recalls(a, ones(a) * 2, b).item() == once
    twice = a.repeat(2, 1)
    assert recalls(twice, ones(twice), b).item() < once


def test_a_picture_is_not_its_own_neighbour_where_another_like_it_is_left_out():
    """The ball of the picture at 0 reaches to its third neighbour, at 6; nothing else reaches below 0."""
    a, b = torch.tensor([[0.0], [0.0], [4.0], [5.0], [6.0]]), torch.tensor([[-5.5], [-6.5]])
    weights = torch.tensor([[0.0, 1, 1, 1, 1], [1, 0, 1, 1, 1]])
    assert recalls(a, weights, b).tolist() == [0.5, 0.5]


def test_a_resample_of_few_pictures_has_balls_up_to_the_farthest():
    """Of two pictures, each ball reaches to the other; of one, it is a point."""
    a, b = torch.tensor([[0.0], [2.0], [9.0], [10.0], [11.0]]), torch.tensor([[1.0], [5.0], [2.0], [0.0]])
    weights = torch.tensor([[3.0, 2, 0, 0, 0], [0, 5, 0, 0, 0]])
    assert recalls(a, weights, b).tolist() == [0.75, 0.25]
