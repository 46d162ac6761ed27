"""A metric that scores patches, and one that does not, for tests of the report."""

from __future__ import annotations

from typing import Any

import torch
from attrs import define, field
from torch import Tensor

from d4k import CheckpointError, DataError, hookimpl

__all__ = ["Lightness", "PatchPlugin", "Warmth"]

PATCH = 4


@define
class Warmth:
    """Red minus blue; scores no patches."""

    scale: float = 1.0
    needs: frozenset[str] = field(default=frozenset({"image"}), init=False)
    higher_is_better: bool | None = field(default=None, init=False)
    unit: str = field(default="", init=False)

    def load(self, device: torch.device) -> None:
        """Nothing."""

    def observe(self, image: list[Tensor]) -> Tensor:
        return torch.stack([(picture[0].double() - picture[2].double()).mean()[None] for picture in image]) * self.scale

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean())


@define
class Lightness:
    """The mean grey level, also of each patch of four pixels a side."""

    scale: float = 1.0
    weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    without: str = ""
    needs: frozenset[str] = field(default=frozenset({"image"}), init=False)
    higher_is_better: bool | None = field(default=True, init=False)
    unit: str = field(default="levels", init=False)
    patch: int = field(default=PATCH, init=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.weights, tuple):
            raise TypeError("weights must be a tuple")

    def load(self, device: torch.device) -> None:
        if self.without:
            raise CheckpointError(self.without)

    def observe(self, image: list[Tensor]) -> Tensor:
        return torch.stack([self.patch_map(picture).mean()[None] for picture in image])

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        return float(rows.mean())

    def patch_map(self, image: Tensor) -> Tensor:
        if min(image.shape[1:]) < PATCH:
            raise DataError(f"a picture must have {PATCH} pixels a side")
        weighted = image.double() * torch.tensor(self.weights, dtype=torch.float64)[:, None, None]
        return torch.nn.functional.avg_pool2d(weighted.mean(0)[None], PATCH)[0] * self.scale


class PatchPlugin:
    """Registers both."""

    @staticmethod
    @hookimpl
    def register_metrics(register: Any) -> None:
        register("lightness", f"{__name__}:Lightness", summary="mean of patches")
        register("warmth", f"{__name__}:Warmth", summary="red minus blue")
