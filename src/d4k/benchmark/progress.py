"""One bar over everything that a benchmark computes, with the time that is left."""

from __future__ import annotations

import sys

from tqdm import tqdm

from d4k.sampling import SamplingStep

__all__ = ["Work", "looks"]

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left{postfix}"


class Work:
    """The work of this process, in million pixels that are looked at once: a step of sampling is one look.

    Reading, cutting, enlarging or measuring a picture counts as a step of its size, which is about right for the models
    that 4K takes. What is there already is no work.

    Args:
        total: of this process.
        quiet: show nothing.
    """

    def __init__(self, total: float, *, quiet: bool = False) -> None:
        self.bar = tqdm(desc="benchmark", total=max(total, 1e-9), file=sys.stderr, bar_format=FORMAT, disable=quiet)
        self.size = 0.0

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def begin(self, what: str, width: int, height: int) -> None:
        """From now on pictures of this size are worked on."""
        self.size = looks(1, width, height)
        self.bar.set_postfix_str(what)

    def seen(self, count: int = 1) -> None:
        """So many pictures were looked at."""
        self.bar.update(min(self.size * count, self.bar.total - self.bar.n))

    def stepped(self, step: SamplingStep) -> None:  # noqa: ARG002
        """A step of sampling was done."""
        self.seen()


def looks(count: int, width: int, height: int) -> float:
    """The work of looking so often at pictures of a size."""
    return count * width * height / 1e6
