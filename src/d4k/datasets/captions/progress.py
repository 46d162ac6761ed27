"""The bar that captioning shows: pictures, the time that is left, and what was spent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from d4k.datasets.captions.run import Captioned

__all__ = ["Bar"]


class Bar:
    """A bar over the pictures of a dataset, on the error stream.

    Args:
        pictures: of the dataset.
        quiet: show nothing.
    """

    def __init__(self, pictures: int, *, quiet: bool = False) -> None:
        self._bar = tqdm(
            desc="captioning", unit="picture", total=pictures, file=sys.stderr, delay=0.5, smoothing=0.05, disable=quiet
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def step(self, done: Captioned, spent: float) -> None:
        """Count a picture, and show what came of those before."""
        said = {
            "refused": done.refused or None,
            "failed": len(done.failures) or None,
            "spent": f"${spent:.2f}" if spent else None,
        }
        self._bar.set_postfix({name: value for name, value in said.items() if value}, refresh=False)
        self._bar.update()
