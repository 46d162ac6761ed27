"""Metrics of torchmetrics as metrics of d4k.

evaluate(files, {"ssim": TorchMetric(StructuralSimilarityIndexMeasure(data_range=1.0))}, reference=folder)
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from attrs import field, frozen
from torch import Tensor

from d4k.errors import ConfigError, DataError, first_line
from d4k.protocols import Metric, Need

__all__ = ["TorchMetric", "as_metric"]

ARGUMENTS: Mapping[str, Need] = {
    **dict.fromkeys(("preds", "img", "imgs", "image", "images", "source"), "image"),
    **dict.fromkeys(("target", "real_imgs"), "reference"),
    **dict.fromkeys(("text", "prompt", "prompts", "caption"), "prompt"),
}
"""What torchmetrics calls its arguments, and what they are here."""

REAL = "real"
"""The argument with which metrics of sets tell reference pictures from others."""

PLAIN = (bool, int, float, str, type(None))


def as_metric(metric: Any) -> Metric:
    """A metric as it is, or wrapped where it is one of torchmetrics.

    Args:
        metric: a `d4k.Metric`, or an object with `update`, `compute` and `reset`.

    Raises:
        ConfigError: it is neither.
    """
    if hasattr(metric, "observe") and hasattr(metric, "score"):
        return metric  # type: ignore[no-any-return]
    if all(callable(getattr(metric, name, None)) for name in ("update", "compute", "reset")):
        return TorchMetric(metric)
    raise ConfigError(
        f"{type(metric).__name__} is no metric: it must have load, observe and score (d4k.Metric), or update, compute "
        "and reset (torchmetrics)"
    )


@frozen(slots=False)
class TorchMetric:
    """A metric of torchmetrics. Its score is the mean of its figures of single pictures.

    That is not what torchmetrics says of several pictures where it adds up first and divides afterwards, as it does for
    PSNR. `whole_set` asks for the figure of torchmetrics itself, which has no interval.

    Args:
        metric: an object of torchmetrics, or any with `update`, `compute` and `reset`.
        arguments: what `update` takes, in its order, such as `("image", "reference")`; read off the names of its
            arguments when left out.
        pixels: "unit" shows it pictures as float32 in [0, 1], "bytes" as uint8; (1, 3, H, W) either way.
        whole_set: show it all pictures before its figure is asked for. A metric that tells real pictures from others,
            such as the FID of torchmetrics, is one of whole sets.

    Raises:
        ConfigError: the arguments of `update` have names that say nothing.
    """

    metric: Any
    arguments: tuple[Need, ...] = field(default=(), converter=tuple)
    pixels: Literal["unit", "bytes"] = "unit"
    whole_set: bool = False
    _real: bool = field(default=False, init=False, repr=False)
    _device: torch.device = field(default=torch.device("cpu"), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        names = list(inspect.signature(self.metric.update).parameters)
        object.__setattr__(self, "_real", REAL in names)
        object.__setattr__(self, "whole_set", self.whole_set or REAL in names)
        if not self.arguments:
            object.__setattr__(self, "arguments", self._guessed(names))

    @property
    def needs(self) -> frozenset[Need]:
        """What `update` is called with; a metric of sets sees references beside the pictures."""
        return frozenset(self.arguments) | ({"reference"} if self._real else set())

    @property
    def higher_is_better(self) -> bool | None:
        """As the metric says itself."""
        said = getattr(self.metric, "higher_is_better", None)
        return said if isinstance(said, bool) else None

    @property
    def unit(self) -> str:
        """A plain number."""
        return ""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distribution of the metric."""
        return (type(self.metric).__module__.partition(".")[0],)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Class and options of the metric, as far as they are plain values."""
        shown = {name: value for name, value in vars(self.metric).items() if not name.startswith("_")}
        options = {name: value for name, value in sorted(shown.items()) if isinstance(value, PLAIN)}
        options.pop("training", None)
        kind = f"{type(self.metric).__module__}.{type(self.metric).__qualname__}"
        reduction = "of the whole set" if self.whole_set else "mean over pictures"
        return {"class": kind, **options, "arguments": list(self.arguments), "pixels": self.pixels, "figure": reduction}

    @cached_property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row: class, options and weights."""
        return {**self.settings, "weights": self._weights()}

    def load(self, device: torch.device) -> None:
        """Place the metric, and forget what it has seen."""
        if hasattr(self.metric, "to"):
            self.metric.to(device)
        object.__setattr__(self, "_device", device)
        self.metric.reset()

    def observe(self, **inputs: Sequence[Any]) -> Tensor:
        """The figures of each picture by itself (B, D); of a metric of whole sets there are none, (B, 0).

        Raises:
            DataError: the metric cannot say anything of one picture, or does not take these.
        """
        rows = [self._row({need: value[place] for need, value in inputs.items()}) for place in range(len(_any(inputs)))]
        return torch.stack(rows)

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:  # noqa: ARG002
        """Mean over pictures of the first figure, or the figure of the whole set.

        Raises:
            DataError: there are none.
        """
        if not len(rows):
            raise DataError("no picture was measured; there must be at least one")
        return float(self._figures()[0] if self.whole_set else rows[:, 0].mean())

    def remarks(self, count: int, references: int) -> tuple[str, ...]:  # noqa: ARG002
        """That a figure of a whole set has no interval."""
        said = "It is one figure of the whole set, without figures of single pictures: it has no interval."
        return (said,) if self.whole_set else ()

    def _row(self, inputs: Mapping[str, Any]) -> Tensor:
        if not self.whole_set:
            self.metric.reset()
        try:
            if self._real:
                self.metric.update(self._shown(inputs["reference"]), real=True)
                self.metric.update(self._shown(inputs["image"]), real=False)
            else:
                self.metric.update(*(self._shown(inputs[need]) for need in self.arguments))
            return torch.zeros(0, dtype=torch.float64) if self.whole_set else self._figures()
        except (ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            raise DataError(
                f"{type(self.metric).__name__} cannot measure one picture by itself: {first_line(error)} Wrap it with "
                "pixels='bytes' if it wants uint8, or with whole_set=True if it is a figure of sets"
            ) from error

    def _figures(self) -> Tensor:
        found = self.metric.compute()
        values = found.values() if isinstance(found, Mapping) else found if isinstance(found, tuple | list) else [found]
        return torch.stack([torch.as_tensor(value).detach().double().cpu().reshape(()) for value in values])

    def _shown(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return [value] if isinstance(value, str) else value
        picture = value[None].to(self._device)
        return picture if self.pixels == "bytes" else picture.to(torch.float32) / 255

    def _weights(self) -> str:
        """SHA-256 of the weights of its networks; empty where it has none."""
        hasher = hashlib.sha256()
        tensors: Mapping[str, Tensor] = getattr(self.metric, "state_dict", dict)()
        for name, tensor in sorted(tensors.items()):
            hasher.update(
                name.encode() + tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            )
        return hasher.hexdigest() if tensors else ""

    def _guessed(self, names: Sequence[str]) -> tuple[Need, ...]:
        positional = [name for name in names if name not in (REAL, "args", "kwargs")]
        strange = [name for name in positional if name not in ARGUMENTS]
        if strange or not positional:
            raise ConfigError(
                f"the arguments of {type(self.metric).__name__}.update are called {', '.join(names) or 'nothing'}; say "
                "what they are, such as TorchMetric(metric, arguments=('image', 'reference'))"
            )
        return tuple(ARGUMENTS[name] for name in positional)


def _any(inputs: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    return next(iter(inputs.values()))
