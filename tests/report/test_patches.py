"""Heat maps, and the patches that stand out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from patch_metrics import Lightness, PatchPlugin

from d4k.errors import DataError
from d4k.protocols import Score
from d4k.report.patches import PatchScorer, colour, ends, extremes, make_scorers


@pytest.fixture(autouse=True)
def installed(install: Callable[..., None]) -> None:
    install(light=PatchPlugin)


def score(name: str, **settings: Any) -> Score:
    return Score(name, 1.0, "", 3, True, settings)


def test_metrics_are_made_again_from_the_settings_of_their_scores() -> None:
    """Lists of JSON become tuples again, and what is no option of the metric is left out."""
    (found,), notes = make_scorers([score("lightness", scale=2.0, weights=[0.0, 3.0, 0.0], resamples=1000)])
    assert (found.name, found.patch, found.metric) == ("lightness", 4, Lightness(2.0, (0.0, 3.0, 0.0)))
    assert notes == []
    image = torch.zeros(3, 8, 12, dtype=torch.uint8)
    image[:, 4:, 8:] = 10
    assert found.scores(image).tolist() == [[0, 0, 0], [0, 0, 20]]


def test_metrics_without_maps_are_passed_over_and_named() -> None:
    """One that scores no patches, one that nobody registered, one with other options, one without its weights."""
    scores = [
        score("warmth"),
        score("light"),
        score("lightness", weights="heavy"),
        score("lightness", without="put w.pt into /here"),
    ]
    with pytest.warns(UserWarning, match="No heat maps") as said:
        found, notes = make_scorers(scores)
    assert found == []
    assert notes[0] == "No heat maps of warmth: it does not score patches."
    assert "unknown metric 'light'" in notes[1]
    assert "weights" in notes[2]
    assert notes[3] == "No heat maps of lightness: put w.pt into /here"
    assert [str(warning.message) for warning in said] == notes[1:]  # that a metric scores no patches is no fault


def test_a_picture_without_a_patch_is_a_data_error() -> None:
    """As a metric raises it, or where there is no number in its map."""

    class Nothing(Lightness):
        def patch_map(self, image: torch.Tensor) -> torch.Tensor:
            return torch.full((2, 2), torch.nan)

    with pytest.raises(DataError, match="dark gives no score of a patch"):
        PatchScorer("dark", Nothing(), 4, True).scores(torch.zeros(3, 8, 8, dtype=torch.uint8))


def test_colours_are_those_of_viridis_between_the_ends() -> None:
    """By matplotlib's own table; the ends are those of all maps of a row, and what is no number is transparent."""
    first, second = np.array([[0.0, 5.0]]), np.array([[np.nan, 10.0], [2.5, np.inf]])
    low, high = ends([first, second])
    assert (low, high) == (0.0, 10.0)
    table = (np.asarray(mpl.colormaps["viridis"].colors) * 255).astype(np.uint8)
    pixels = np.asarray(colour(second, low, high))
    assert pixels.shape == (2, 2, 4)
    assert pixels[0, 1].tolist() == [*table[255].tolist(), 255]
    assert pixels[1, 0].tolist() == [*table[64].tolist(), 255]
    assert pixels[..., 3].tolist() == [[0, 255], [255, 0]]
    assert np.asarray(colour(first, low, high))[0, 1].tolist() == [*table[128].tolist(), 255]


def test_a_flat_map_has_one_colour() -> None:
    """Where the lowest score is the highest."""
    pixels = np.asarray(colour(np.array([[3.0, 3.0, np.nan]]), 3.0, 3.0))
    assert pixels[0, 0].tolist() == pixels[0, 1].tolist()
    assert pixels[..., 3].tolist() == [[255, 255, 0]]


@pytest.mark.parametrize(("better", "worst"), [(True, -5.0), (False, 9.0), (None, -5.0)])
def test_the_worst_and_the_best_are_by_direction(better: bool | None, worst: float) -> None:
    """With the pixels where they lie; of a metric without direction the highest counts as the best."""
    scores = np.zeros((5, 7))
    scores[1, 6], scores[4, 0] = 9.0, -5.0
    found = extremes(scores, 64, better)
    high, low = (found.worst[0], found.best[0]) if better is False else (found.best[0], found.worst[0])
    assert found.worst[0].value == worst
    assert (high.x, high.y, high.size, high.value) == (6 * 64, 64, 64, 9.0)
    assert (low.x, low.y, low.value) == (0, 4 * 64, -5.0)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_patches_of_a_list_do_not_touch_and_no_better_one_was_left(rows: int, columns: int, seed: int) -> None:
    """Each of six is the best of those that touch none before it; where there are fewer, nothing is left."""
    scores = np.random.default_rng(seed).normal(size=(rows, columns))
    scores[0, 0] = np.nan
    found = [(patch.y // 8, patch.x // 8) for patch in extremes(scores, 8, True).best]
    assert len(found) <= 6
    free = {(r, c) for r in range(rows) for c in range(columns) if np.isfinite(scores[r, c])}
    for place in found:
        assert place in free
        assert scores[place] == max(scores[other] for other in free)
        free = {(r, c) for r, c in free if max(abs(r - place[0]), abs(c - place[1])) > 1}
    assert len(found) == 6 or not free
