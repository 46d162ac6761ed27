"""What a picture is sampled with otherwise than its model was trained is named, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from attrs import evolve

from d4k.errors import ConfigError
from d4k.models import Training
from d4k.protocols import Backbone
from d4k.sampling import SamplingSettings, Stage, deviations, is_other_size, settings_from, settings_record

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


STAGED = SamplingSettings(
    64, 48, 4, 2.0, restart=0.6, alignment=0.5, upscaler_options={"a": 1}, earlier=(Stage(32, 24, 3, 2.0, 1.5),)
)


def test_the_settings_of_a_plain_picture_are_recorded_as_ever() -> None:
    """What is new is kept only where it differs from its default."""
    assert settings_record(SamplingSettings(64, 48, 4, 2.0)) == {
        "width": 64, "height": 48, "steps": 4, "guidance": 2.0, "shift": "scheduler", "negative_prompt": "",
    }  # fmt: skip
    assert {"restart", "alignment", "upscaler_options", "earlier"} < set(settings_record(STAGED))
    assert "upscaler" not in settings_record(STAGED)


def test_settings_come_back_from_a_recipe_in_json() -> None:
    for settings in (STAGED, SamplingSettings(64, 48, 4, 2.0, shift=3.0, negative_prompt="blur")):
        recipe = json.loads(json.dumps({"prompt": "a", **settings_record(settings)}))
        assert settings_from(recipe) == settings


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"earlier": [{"width": 32}]}, "missing key 'earlier.1.height'"),
        ({"earlier": [{"width": 32, "height": 24, "steps": 0, "guidance": 1}]}, "earlier.1.steps must be a whole"),
        ({"earlier": [{"colour": 1}]}, "unknown key 'earlier.1.colour'"),
        ({"earlier": 5}, "earlier must be a list of stages, got 5"),
        ({"earlier": ["32x24"]}, "earlier.1 must be a table, got '32x24'"),
        ({"alignment": "much"}, "alignment must be a number"),
        ({"upscaler": ""}, "upscaler must be a string that is not empty"),
    ],
)
def test_a_damaged_recipe_is_refused_by_its_key(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_from({**settings_record(STAGED), **changed})


def test_all_stages_share_what_is_no_setting_of_one() -> None:
    """The last is the picture's own; none has any before it."""
    settings = evolve(STAGED, negative_prompt="blur")
    first, last = settings.stages
    assert (first.width, first.steps, first.shift, first.restart) == (32, 3, 1.5, 1.0)
    assert (last.width, last.steps, last.shift, last.restart) == (64, 4, "scheduler", 0.6)
    assert {(one.negative_prompt, one.alignment, one.earlier) for one in (first, last)} == {("blur", 0.5, ())}


def test_earlier_stages_are_stages() -> None:
    with pytest.raises(ConfigError, match="earlier must be a tuple of stages, got"):
        SamplingSettings(64, 48, 4, 2.0, earlier=(SamplingSettings(32, 24, 4, 2.0),))


def test_options_of_an_upscaler_are_what_a_recipe_can_hold(tmp_path: Path) -> None:
    """A path is kept as text; what JSON has no word for is refused before it has cost a picture."""
    made = SamplingSettings(16, 16, 2, 1.0, upscaler_options={"file": tmp_path, "tile": 64})
    assert json.loads(json.dumps(settings_record(made)))["upscaler_options"] == {"file": str(tmp_path), "tile": 64}
    with pytest.raises(ConfigError, match="upscaler_options cannot be kept in a recipe: .* give numbers and strings"):
        SamplingSettings(16, 16, 2, 1.0, upscaler_options={"file": object()})
