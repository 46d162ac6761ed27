"""A run that differs from what its model was trained with, or is sampled with, says so, and no other does."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from diffusers import FlowMatchEulerDiscreteScheduler

from d4k import Pipeline
from d4k.config import RunConfig, from_mapping
from d4k.models import Training
from d4k.training.deviations import deviations_of_run, note_of_run


@pytest.fixture(scope="module")
def flux() -> Pipeline:
    return Pipeline.from_pretrained("tiny-flux", device="cpu")


def said(pipe: Pipeline, before: Training, size: tuple[int, int] = (256, 256), **flow: Any) -> list[str]:
    """What is said of a run of that size with these settings of noise levels."""
    config = from_mapping(
        RunConfig, {"model": "tiny", "dataset": {"name": "sample-photos"}, "output_dir": "run", "flow": flow}
    )
    return list(deviations_of_run(pipe.backbone, evolve(pipe.loaded.model, training=before), config, *size))


def test_a_run_that_goes_on_as_its_model_was_trained_says_nothing(flux: Pipeline) -> None:
    before = Training(256, 256, guidance=3.5, shift=2.0, options=dict(flux.backbone.trained_options))
    assert said(flux, before, shift=2.0) == []
    assert said(flux, before, shift="auto") == []
    assert said(flux, Training()) == []
    assert said(flux, before, (320, 208), shift=2.0) == []  # another shape of about as many pixels


@pytest.mark.parametrize(
    ("before", "options", "words"),
    [
        (Training(guidance=5.0), {}, "guidance 3.5, the model was trained with 5"),
        (Training(guidance=3.5), {"guidance": 2.0}, "guidance 2, the model was trained with 3.5"),
        (Training(shift=3.0), {"shift": 2.0}, "shift 2, the model was trained with 3"),
        (Training(shift=3.0), {}, "shift 1, the model was trained with 3"),
        (Training(1024, 1024), {}, "size 256x256, the model was trained at 1024x1024"),
        (Training(options={"text_tokens": 7}), {}, "the model was trained with 7"),
    ],
)
def test_each_setting_that_differs_is_named_with_both_values(
    flux: Pipeline, before: Training, options: dict[str, Any], words: str
) -> None:
    (found,) = said(flux, before, **options)
    assert found.endswith(words)


def test_a_shift_of_1_above_the_trained_size_is_named_with_what_sampling_takes(flux: Pipeline) -> None:
    """A number other than 1 is kept beside the weights, so that sampling takes it, too."""
    (found,) = said(flux, Training(), (512, 512), shift=1.0)
    assert found.startswith("shift 1, sampling at this size takes ")
    assert float(found.split()[-1]) > 1.5
    assert said(flux, Training(), (512, 512), shift=2.5) == []
    assert said(flux, Training(), (512, 512)) == []


def test_levels_that_no_shift_gives_are_said_and_do_not_stop_a_run_with_a_shift_of_its_own(
    flux: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def karras(_self: object, steps: int, *_: Any, **__: Any) -> FlowMatchEulerDiscreteScheduler:
        scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
        scheduler.set_timesteps(steps)
        return scheduler

    monkeypatch.setattr(type(flux.backbone), "scheduler", karras)
    (found,) = said(flux, Training(), (512, 512), shift=1.0)
    assert found == "shift 1, sampling at this size takes other noise levels, which no shift gives"


def test_all_that_differs_is_one_line_and_nothing_is_none(flux: Pipeline) -> None:
    config = from_mapping(
        RunConfig,
        {"model": "tiny", "dataset": {"name": "sample-photos"}, "output_dir": "run", "data": {"width": 512}},
    )
    model = evolve(flux.loaded.model, training=Training(256, 256, guidance=5.0))
    (line,) = note_of_run(flux.backbone, model, config, 512, 256)
    assert line == (
        "this run differs from how 'tiny-flux' was trained or is sampled: guidance 3.5, the model was trained with 5; "
        "size 512x256, the model was trained at 256x256"
    )
    bare = evolve(model, training=Training())
    assert note_of_run(flux.backbone, bare, config, 512, 256) == ()
