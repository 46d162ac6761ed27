"""The bar of `generate`: which stage it names, and the time that is left."""

from __future__ import annotations

import pytest
import torch

from d4k.sampling import Planned, Progress, SamplingStep
from d4k.sampling.progress import Pace

PLAN = [Planned(8, 8, 2), Planned(16, 16, 3)]


class Clock:
    """Stands still until it is told that time has passed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def take(progress: Progress, clock: Clock, number: int, stage: int, seconds: float) -> None:
    clock.now += seconds
    nothing = torch.empty(0)
    progress(SamplingStep(number, 5, 0, 0.5, nothing, nothing, stage, 2))


def test_bar_names_the_stage_and_counts_the_steps_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    """The next stage is named when the one before it is done, not after its first step."""
    clock = Clock()
    with Progress(2, PLAN, clock=clock) as progress:
        with progress.picture(PLAN):
            assert (progress.bar.desc.removesuffix(": "), progress.bar.total) == ("stage 1/2 8x8", 10)
            take(progress, clock, 1, 1, 1.0)
            assert progress.bar.desc.removesuffix(": ") == "stage 1/2 8x8"
            take(progress, clock, 2, 1, 1.0)
            assert progress.bar.desc.removesuffix(": ") == "stage 2/2 16x16"
            for number in (3, 4, 5):
                take(progress, clock, number, 2, 10.0)
        assert (progress.bar.desc.removesuffix(": "), progress.bar.n, progress.bar.total) == ("stage 1/2 8x8", 5, 10)
        with progress.picture(PLAN):
            for number in range(1, 6):
                take(progress, clock, number, 1 + (number > 2), 1.0)
        assert (progress.bar.desc.removesuffix(": "), progress.bar.n, progress.bar.total) == ("generating", 10, 10)
    assert "pictures=2/2" in capsys.readouterr().err


def test_time_left_counts_later_stages_by_their_pixels_until_they_are_measured() -> None:
    """One second for a step of 64 pixels is four for one of 256; what was measured is believed."""
    clock = Clock()
    with Progress(2, PLAN, clock=clock, quiet=True) as progress, progress.picture(PLAN):
        assert progress.left is None
        take(progress, clock, 1, 1, 1.0)
        assert progress.left == (1 + 3 * 4) + (2 + 3 * 4)
        take(progress, clock, 2, 1, 1.0)
        take(progress, clock, 3, 2, 10.0)
        assert progress.left == 2 * 10 + (2 + 3 * 10)


def test_finished_stages_that_are_taken_over_count_as_done() -> None:
    """The first step that is told of is a later one, and their steps take no time."""
    clock = Clock()
    with Progress(1, PLAN, clock=clock, quiet=True) as progress, progress.picture(PLAN):
        take(progress, clock, 3, 2, 5.0)
        assert progress.left == 2 * 5


def test_pictures_without_a_plan_are_counted_by_their_steps() -> None:
    """As of an upscaler, which tells of them when it is done."""
    clock = Clock()
    with Progress(3, clock=clock, quiet=True) as progress:
        assert progress.bar.total is None
        with progress.picture(()):
            take(progress, clock, 1, 1, 2.0)
            assert progress.left == 4 * 2 + 2 * 5 * 2


def test_pace_of_a_size_is_that_of_the_nearest_one() -> None:
    """By the ratio of the pixels."""
    pace = Pace()
    assert pace.seconds({10: 1}) is None
    pace.took(100, 1.0)
    pace.took(100, 3.0)
    pace.took(10_000, 1000.0)
    assert pace.seconds({100: 1, 200: 1, 20_000: 1, 5: 0}) == 2 + 4 + 2000
