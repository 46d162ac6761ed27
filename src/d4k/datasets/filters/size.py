"""Pixels of a picture, and their aspect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from attrs import field, frozen

from d4k.config import rules
from d4k.images import Picture
from d4k.protocols import Limit

__all__ = ["SizeFilter"]


@frozen
class SizeFilter:
    """Rejects small pictures, and very long ones.

    Args:
        min_side: pixels that the short side has at least.
        max_aspect: long side divided by short side, at most.
    """

    min_side: int = field(default=2048, validator=rules.whole(1))
    max_aspect: float = field(default=3.0, validator=rules.number(1))

    figures: ClassVar[Mapping[str, str]] = {
        "short_side": "pixels on the short side",
        "aspect": "long side divided by short side",
    }

    @property
    def limits(self) -> tuple[Limit, ...]:
        """One for each option."""
        return (
            Limit("short_side", "min_side", least=self.min_side),
            Limit("aspect", "max_aspect", most=self.max_aspect),
        )

    def measure(self, picture: Picture) -> dict[str, float]:
        """See `figures`."""
        height, width = picture.pixels.shape[:2]
        return {"short_side": min(height, width), "aspect": max(height, width) / min(height, width)}
