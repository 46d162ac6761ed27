"""Noise levels of training are those of sampling at the same size, unless the settings say otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import evolve
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)

from d4k import Pipeline
from d4k.config import FlowSettings, RunConfig, from_mapping
from d4k.errors import ConfigError
from d4k.flow import sample_sigma, shift_sigma
from d4k.models import Training
from d4k.sampling import choose_settings
from d4k.training.noise import draw_sigma, lasting_shift, sampling_shift, scheduler_shift, training_shift
from d4k.training.result import trained_model

BASE = {"model": "tiny", "dataset": {"name": "sample-photos"}, "output_dir": "run"}


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


SOLVERS: dict[str, Callable[[float], Any]] = {
    "euler": lambda shift: FlowMatchEulerDiscreteScheduler(shift=shift),
    "heun": lambda shift: FlowMatchHeunDiscreteScheduler(shift=shift),
    "dpm++": lambda shift: DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
    ),
    "unipc": lambda shift: UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=shift
    ),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' DPM-Solver++
@pytest.mark.parametrize("shift", [1.0, 3.0, 6.3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_shift_that_a_scheduler_of_diffusers_was_made_with_is_read_off_its_levels(
    solver: str, shift: float
) -> None:
    scheduler = SOLVERS[solver](shift)
    scheduler.set_timesteps(9)
    assert scheduler_shift(scheduler.sigmas) == pytest.approx(shift, rel=2e-3)


def test_noise_levels_of_karras_are_no_shift() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_karras_sigmas=True)
    scheduler.set_timesteps(9)
    with pytest.raises(ConfigError, match="no shift of equally spaced ones"):
        scheduler_shift(scheduler.sigmas)


@pytest.mark.parametrize(
    ("flow", "kept"),
    [
        ({}, None),
        ({"shift": "auto"}, None),
        ({"shift": 1.0}, None),
        ({"shift": 4.5}, 4.5),
    ],
)
def test_only_a_shift_that_sampling_would_not_take_is_kept(pipe: Pipeline, flow: Any, kept: float | None) -> None:
    size = 2 * pipe.backbone.defaults.size
    model = evolve(pipe.loaded.model, training=Training())
    assert lasting_shift(pipe.backbone, model, FlowSettings(**flow), size, size) == kept


def test_a_shift_that_came_from_the_record_of_the_model_is_kept_in_the_record_of_the_run(pipe: Pipeline) -> None:
    """Else a model that goes on from one trained at 7 would train at 7 and be sampled with another."""
    size = 2 * pipe.backbone.defaults.size
    learnt = evolve(pipe.loaded.model, training=Training(shift=7.0))
    said = evolve(pipe.loaded.model, training=Training(), registered={"shift": 7.0})
    for model in (learnt, said):
        assert training_shift(pipe.backbone, model, FlowSettings(), size, size) == 7
        assert lasting_shift(pipe.backbone, model, FlowSettings(), size, size) == 7
        config = from_mapping(RunConfig, {**BASE, "data": {"width": size, "height": size}})
        assert trained_model(pipe.backbone, model, config).training.shift == 7


def test_the_level_of_a_sample_is_that_of_the_density_after_the_shift() -> None:
    """All settings of the section count, and the generator alone decides."""
    flow = FlowSettings(density="beta", alpha=0.7, beta=1.3)
    drawn = [draw_sigma(flow, 3.0, torch.Generator().manual_seed(7)) for _ in range(2)]
    plain = sample_sigma(1, density="beta", alpha=0.7, beta=1.3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(drawn[0], shift_sigma(plain, 3.0))
