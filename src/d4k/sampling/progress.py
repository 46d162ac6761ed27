"""The bar that `generate` shows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from tqdm import tqdm

from d4k.sampling.loop import SamplingStep

__all__ = ["Progress", "counting"]

Thing = TypeVar("Thing")


class Progress:
    """A bar over the steps of several pictures, on the error stream, with the time that is left.

    It is shown before the first step is done, since a step of a large picture takes minutes on a slow machine.

    Args:
        pictures: to be generated.
        steps: of each picture, where that is known beforehand.
        on_step: called after every step, too.
        quiet: show nothing.
    """

    def __init__(
        self,
        pictures: int,
        steps: int | None = None,
        on_step: Callable[[SamplingStep], None] | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.pictures, self.done, self.on_step = pictures, 0, on_step
        total = None if steps is None else steps * pictures
        self.bar = tqdm(
            desc="generating", unit="step", total=total, file=sys.stderr, disable=quiet or not pictures,
            postfix=self._said(),
        )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __call__(self, step: SamplingStep) -> None:
        """Count a step."""
        self.bar.total = step.steps * self.pictures
        self.bar.update()
        if self.on_step is not None:
            self.on_step(step)

    def count(self) -> None:
        """Count a picture."""
        self.done += 1
        self.bar.set_postfix(self._said(), refresh=False)

    def _said(self) -> dict[str, str]:
        return {"pictures": f"{self.done}/{self.pictures}"}

    def __exit__(self, *exception: object) -> None:
        self.bar.close()


def counting(things: Iterable[Thing], words: str, unit: str, *, quiet: bool = False) -> Iterable[Thing]:
    """Show a bar while many things are looked at, if that takes longer than a moment."""
    shown: Iterable[Thing] = tqdm(things, desc=words, unit=unit, delay=0.5, leave=False, file=sys.stderr, disable=quiet)
    return shown
