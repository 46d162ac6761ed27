"""Noise levels of training are those of sampling at the same size, unless the settings say otherwise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from d4k import Pipeline
from d4k.config import FlowSettings
from d4k.errors import ConfigError
from d4k.flow import shift_sigma
from d4k.sampling import choose_settings
from d4k.training.noise import sampling_shift, scheduler_shift, training_shift


@pytest.fixture(scope="module", params=["tiny-sd3", "tiny-flux"])
def pipe(request: pytest.FixtureRequest) -> Pipeline:
    """A model with positions for any size."""
    options: dict[str, Any] = {"positions": "interpolate"} if request.param == "tiny-sd3" else {}
    return Pipeline.from_pretrained(request.param, device="cpu", **options)


def levels(pipe: Pipeline, width: int, height: int) -> torch.Tensor:
    """What a picture of this size is sampled at."""
    chosen = choose_settings(pipe.backbone, pipe.loaded.model, {"width": width, "height": height})
    sigmas: torch.Tensor = pipe.backbone.scheduler(7, height, width, chosen.scheduler_shift).sigmas[:-1]
    return sigmas


@pytest.mark.parametrize("size", [(256, 256), (384, 512), (1024, 1024)])
def test_the_shift_of_sampling_undone_leaves_equal_steps(pipe: Pipeline, size: tuple[int, int]) -> None:
    shift = sampling_shift(pipe.backbone, pipe.loaded.model, *size)
    plain = shift_sigma(levels(pipe, *size).double(), 1 / shift)
    assert plain.diff().std() < 2e-4


def test_auto_grows_with_the_picture_where_the_scheduler_does() -> None:
    """By the rule of FLUX.1: exp(mu), with mu linear in the number of tokens."""
    pipe = Pipeline.from_pretrained("tiny-flux", device="cpu")
    own = pipe.backbone.pipeline  # type: ignore[attr-defined]
    own.scheduler = type(own.scheduler).from_config(own.scheduler.config, use_dynamic_shifting=True)
    for side in (256, 512):
        tokens = pipe.backbone.latent.tokens(side, side)
        mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
        assert sampling_shift(pipe.backbone, pipe.loaded.model, side, side) == pytest.approx(math.exp(mu), rel=1e-3)


def test_left_out_it_is_that_of_sampling_above_the_trained_size_alone(pipe: Pipeline) -> None:
    size, model = pipe.backbone.defaults.size, pipe.loaded.model
    larger = training_shift(pipe.backbone, model, FlowSettings(), 2 * size, 2 * size)
    assert training_shift(pipe.backbone, model, FlowSettings(), size, size) == 1
    assert larger == sampling_shift(pipe.backbone, model, 2 * size, 2 * size) > 1
    assert training_shift(pipe.backbone, model, FlowSettings(shift="auto"), 2 * size, 2 * size) == larger
    assert training_shift(pipe.backbone, model, FlowSettings(shift=2), 2 * size, 2 * size) == 2


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 6.3])
def test_a_shift_is_found_in_its_schedule(shift: float) -> None:
    levels = shift_sigma(torch.linspace(1, 0.05, 9), shift)
    assert scheduler_shift(torch.cat([levels, torch.zeros(1)])) == pytest.approx(shift, rel=1e-3)


def test_levels_that_no_shift_makes_are_refused() -> None:
    levels = torch.cat([torch.linspace(1, 0.1, 9) ** 3, torch.zeros(1)])
    with pytest.raises(ConfigError, match=r"give flow\.shift a number"):
        scheduler_shift(levels)
