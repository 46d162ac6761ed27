"""What the tests of building datasets have in common: small photographs, a filter, and what a dataset consists of."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from attrs import field, frozen
from PIL import Image

from d4k import Limit, Picture, hookimpl
from d4k.datasets.build import BuildSettings

LAST: dict[str, int] = {"left": -1}
"""Pictures that `Grey` measures before it kills its own process; -1 for none."""


@frozen
class Grey:
    """A filter by the mean grey level."""

    max_grey: float = 200.0
    power: int = field(default=1)

    figures: ClassVar[Mapping[str, str]] = {"grey": "mean grey level, to a power"}

    @property
    def limits(self) -> tuple[Limit, ...]:
        return (Limit("grey", "max_grey", most=self.max_grey),)

    def measure(self, picture: Picture) -> dict[str, float]:
        if LAST["left"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        LAST["left"] -= 1
        return {"grey": float(picture.luma.mean()) ** self.power}


class GreyPlugin:
    """Registers it."""

    @staticmethod
    @hookimpl
    def register_filters(register: Any) -> None:
        register("grey", f"{__name__}:Grey", summary="mean grey level")


def settings(**more: Any) -> BuildSettings:
    """Settings with the filter `grey` alone, that keep pictures without a licence."""
    return BuildSettings(**{"filters": {"grey": {}}, "default_filters": False, "no_licence": "keep", **more})


def photo(number: int, width: int = 64, height: int = 48, brightest: int = 256) -> Image.Image:
    """A picture that looks like no other."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, brightest, (8, 8, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def fill(folder: Path, count: int) -> Path:
    """A folder with `count` such pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        photo(number).save(folder / f"{number:02}.png")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """What a dataset consists of: every file by its name, without the log, which holds lines in the order they came."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "scan.jsonl"
    }
