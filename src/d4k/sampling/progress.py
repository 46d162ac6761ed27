"""The bar that `generate` shows, over the steps of all stages of all pictures, with the time that is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from attrs import frozen
from tqdm import tqdm

from d4k.sampling.loop import SamplingStep

__all__ = ["Pace", "Planned", "Progress", "counting"]

Thing = TypeVar("Thing")
LAYOUT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{left}{postfix}]"


@frozen
class Planned:
    """A stage of a picture before it is sampled.

    Args:
        width: pixels.
        height: pixels.
        steps: that are taken.
    """

    width: int
    height: int
    steps: int

    @property
    def pixels(self) -> int:
        """Of the stage."""
        return self.width * self.height


class Pace:
    """How long steps take, told from those that were taken.

    A step of a size of which none was taken counts as one of the nearest size, in proportion to the pixels.
    """

    def __init__(self) -> None:
        self._taken: dict[int, tuple[float, int]] = {}

    def took(self, pixels: int, seconds: float) -> None:
        """Note a step."""
        total, steps = self._taken.get(pixels, (0.0, 0))
        self._taken[pixels] = (total + seconds, steps + 1)

    def seconds(self, steps: Mapping[int, int]) -> float | None:
        """How long so many steps will take.

        Args:
            steps: number of pixels -> steps of that size.

        Returns:
            Seconds; None before the first step.

        >>> pace = Pace()
        >>> pace.took(100, 2.0)
        >>> pace.seconds({100: 3, 400: 1})
        14.0
        """
        if not self._taken:
            return None
        return sum(count * self._step(pixels) for pixels, count in steps.items())

    def _step(self, pixels: int) -> float:
        nearest = min(self._taken, key=lambda known: max(known / pixels, pixels / known))
        total, steps = self._taken[nearest]
        return total / steps * pixels / nearest


class _Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A bar that is told how long is left: tqdm takes all steps for equal."""

    left = "?"

    @property
    def format_dict(self) -> dict[str, Any]:
        return {**super().format_dict, "left": self.left}


class Progress:
    """A bar over the steps of several pictures, on the error stream, with the stage and the time that is left.

    It is shown before the first step is done, since a step of a large picture takes minutes on a slow machine.

    Args:
        pictures: to be generated.
        plan: stages of the first of them, where they are known beforehand; the later ones are taken for the like.
        on_step: called after every step, too.
        quiet: show nothing.
        clock: tells the seconds that have passed.
    """

    def __init__(
        self,
        pictures: int,
        plan: Sequence[Planned] = (),
        on_step: Callable[[SamplingStep], None] | None = None,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pictures, self.done, self.on_step, self._clock = pictures, 0, on_step, clock
        self._plan, self._before, self._step, self._pace = tuple(plan), 0, 0, Pace()
        self._last = clock()
        self.bar = _Bar(
            desc=self._stage(), unit="step", total=self._total(), file=sys.stderr, disable=quiet or not pictures,
            postfix=self._said(), bar_format=LAYOUT if plan else None,
        )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    @contextmanager
    def picture(self, plan: Sequence[Planned]) -> Iterator[None]:
        """The making of one picture.

        Args:
            plan: its stages; empty where the steps are not known beforehand.
        """
        self._plan, self._step, self._last = tuple(plan), 0, self._clock()
        yield
        self.done += 1
        self._before += sum(stage.steps for stage in self._plan)
        self._step = 0
        self._show()

    def __call__(self, step: SamplingStep) -> None:
        """Count a step. Where finished stages were taken over, the first one that is told of has a later number."""
        if sum(stage.steps for stage in self._plan) != step.steps:
            self._plan = (Planned(1, 1, step.steps),)
        now = self._clock()
        self._pace.took(self._plan[min(step.stage, len(self._plan)) - 1].pixels, now - self._last)
        self._last, self._step = now, step.step
        self._show()
        if self.on_step is not None:
            self.on_step(step)

    @property
    def left(self) -> float | None:
        """Seconds until all is done; None before the first step."""
        return self._pace.seconds(self._steps_left())

    def _steps_left(self) -> dict[int, int]:
        """Number of pixels -> steps of that size that are to be taken."""
        found: dict[int, int] = {}
        done, later = self._step, max(0, self.pictures - self.done - 1)
        for stage in self._plan:
            here = max(0, stage.steps - done) if self.done < self.pictures else 0
            done = max(0, done - stage.steps)
            found[stage.pixels] = found.get(stage.pixels, 0) + here + later * stage.steps
        return found

    def _stage(self) -> str:
        """The stage that is being sampled, in words."""
        done = self._step
        if self.done == self.pictures:
            return "generating"
        for number, stage in enumerate(self._plan, 1):
            if (done < stage.steps or number == len(self._plan)) and len(self._plan) > 1:
                return f"stage {number}/{len(self._plan)} {stage.width}x{stage.height}"
            done -= stage.steps
        return "generating"

    def _total(self) -> int | None:
        if not self._plan:
            return None
        return self._before + sum(stage.steps for stage in self._plan) * (self.pictures - self.done)

    def _show(self) -> None:
        self.bar.total = self._total()
        left = self.left
        self.bar.left = "?" if left is None else tqdm.format_interval(left)
        self.bar.set_description(self._stage(), refresh=False)
        self.bar.set_postfix(self._said(), refresh=False)
        self.bar.update(self._before + self._step - self.bar.n)

    def _said(self) -> dict[str, str]:
        return {"pictures": f"{self.done}/{self.pictures}"}

    def __exit__(self, *exception: object) -> None:
        self.bar.close()


def counting(things: Iterable[Thing], words: str, unit: str, *, quiet: bool = False) -> Iterable[Thing]:
    """Show a bar while many things are looked at, if that takes longer than a moment."""
    shown: Iterable[Thing] = tqdm(things, desc=words, unit=unit, delay=0.5, leave=False, file=sys.stderr, disable=quiet)
    return shown
