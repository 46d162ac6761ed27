"""What a benchmark is asked to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from d4k.config import Validator, number, optional, table, text, whole
from d4k.config.rules import names_or_none
from d4k.errors import ConfigError
from d4k.models import Loading, ModelRef
from d4k.values import UPSCALER

__all__ = ["PAPER", "BenchmarkSettings", "split_side"]

PAPER = ("fid", "clip-score", "aesthetics", "glcm", "compression-ratio")
"""The five measures of Diffusion-4K, arXiv 2503.18352, by their registered names."""

SIDE = re.compile(r"(?<!\d)\d{3,5}$")


def split_side(split: str | None) -> int | None:
    """The pixels a side that the name of a split ends in, as those of Aesthetic-4K do; None where it ends otherwise.

    >>> split_side("eval-2048"), split_side("eval")
    (2048, None)
    """
    found = SIDE.search(split or "")
    return int(found[0]) if found else None


def _references(models: Iterable[str | Path | ModelRef] | str | Path | ModelRef) -> tuple[ModelRef, ...]:
    given = (models,) if isinstance(models, str | Path | ModelRef) else tuple(models)
    return tuple(model if isinstance(model, ModelRef) else ModelRef(model) for model in given)


def _some_models() -> Validator:
    def check(owner: Any, attribute: Any, value: tuple[ModelRef, ...]) -> None:  # noqa: ARG001
        if not value:
            raise ConfigError("no model was given; name at least one")
        twice = next((model.name for place, model in enumerate(value) if model in value[:place]), None)
        if twice is not None:
            raise ConfigError(f"model '{twice}' is given twice; leave one out")

    return check


def _tables() -> Validator:
    def check(owner: Any, attribute: Any, value: Mapping[str, Any]) -> None:
        table()(owner, attribute, value)
        for name, options in value.items():
            if not isinstance(options, Mapping):
                raise ConfigError(f"{attribute.name}.{name} must be a table of options, got {options!r}")

    return check


@frozen(kw_only=True)
class BenchmarkSettings:
    """What a benchmark is asked to do.

    Args:
        models: names, folders, runs or Hub ids of the models, or references that say more of them.
        dataset: registered name; its pictures are what the models are compared with, its captions are the prompts.
        dataset_options: of the dataset.
        split: its option of that name; None is the dataset's default.
        width: of all pictures in pixels; None is the number that the name of the split ends in, or else the largest of
            the models' own sizes.
        height: likewise.
        limit: take the first so many pictures of the dataset; None takes all.
        metrics: registered names; none takes those of `PAPER` that can be had here.
        metric_options: by the name of a metric, its options.
        steps: of sampling; None is what each model samples with.
        guidance: likewise.
        seed: of the starting noise; each picture has a number of its own from it, the same for all models.
        resamples: of the bootstrap, for the interval of each score; 0 leaves intervals out.
        upscaler: registered name of what enlarges the pictures that a model samples at its own size.
        upscaler_options: of the upscaler.
        loading: how the models are loaded; its device also computes the networks of metrics.
    """

    models: tuple[ModelRef, ...] = field(converter=_references, validator=_some_models())
    dataset: str = field(default="aesthetic-4k", validator=text())
    dataset_options: Mapping[str, Any] = field(factory=dict, validator=table())
    split: str | None = field(default=None, validator=optional(text()))
    width: int | None = field(default=None, validator=optional(whole(1)))
    height: int | None = field(default=None, validator=optional(whole(1)))
    limit: int | None = field(default=None, validator=optional(whole(1)))
    metrics: tuple[str, ...] = field(default=(), converter=tuple, validator=names_or_none())
    metric_options: Mapping[str, Mapping[str, Any]] = field(factory=dict, validator=_tables())
    steps: int | None = field(default=None, validator=optional(whole(1)))
    guidance: float | None = field(default=None, validator=optional(number(0)))
    seed: int = field(default=0, validator=whole(0))
    resamples: int = field(default=1000, validator=whole(0))
    upscaler: str = field(default=UPSCALER, validator=text())
    upscaler_options: Mapping[str, Any] = field(factory=dict, validator=table())
    loading: Loading = field(factory=Loading)

    @property
    def given_size(self) -> tuple[int, int] | None:
        """Width and height, where they are given or the name of the split says them; one side stands for both."""
        named = split_side(self.split)
        width, height = self.width or self.height or named, self.height or self.width or named
        return None if width is None or height is None else (width, height)

    @property
    def sampling(self) -> dict[str, Any]:
        """What is given of sampling, but for the size."""
        return {"steps": self.steps, "guidance": self.guidance}
