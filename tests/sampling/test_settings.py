"""What a picture is sampled with otherwise than its model was trained is named, and nothing else is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from d4k.models import Training
from d4k.protocols import Backbone
from d4k.sampling import SamplingSettings, deviations, is_other_size

BACKBONE = cast(Backbone, SimpleNamespace(trained_options={"downscale": 8, "positions": "interpolate"}))
TRAINED: dict[str, Any] = {"guidance": 3.5, "shift": 2.0, "options": BACKBONE.trained_options}


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        ({}, []),
        ({"guidance": 5.0}, ["guidance 3.5, trained 5.0"]),
        ({"shift": 3.0}, ["shift 2.0, trained 3.0"]),
        ({"options": {"downscale": 16}}, ["downscale 8, trained 16"]),
        ({"options": {"positions": "crop"}}, ["positions interpolate, trained crop"]),
        ({"width": 64, "height": 64}, ["size 128x128, trained 64x64"]),
        ({"width": 256, "height": 256}, ["size 128x128, trained 256x256"]),
        ({"width": 160, "height": 96}, []),  # another shape
        ({"width": 128}, []),
    ],
)
def test_each_setting_that_differs_is_named_with_both_values(trained: dict[str, Any], words: list[str]) -> None:
    settings = SamplingSettings(128, 128, steps=1, guidance=3.5, shift=2.0)
    assert list(deviations(BACKBONE, Training(**{**TRAINED, **trained}), settings)) == words


def test_a_model_of_which_nothing_is_known_is_sampled_without_a_word() -> None:
    settings = SamplingSettings(128, 128, steps=1, guidance=3.5, shift=2.0)
    assert list(deviations(BACKBONE, Training(), settings)) == []


def test_a_size_is_another_from_half_as_many_pixels_more_or_a_third_fewer() -> None:
    """It goes by the number of pixels, either way."""
    assert not is_other_size((100, 150), (100, 100))
    assert is_other_size((100, 151), (100, 100))
    assert not is_other_size((100, 100), (100, 150))
    assert is_other_size((100, 100), (100, 151))
