"""Which metrics a benchmark measures, settled before anything is computed."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import attrs
import torch

from d4k.benchmark.settings import PAPER, BenchmarkSettings
from d4k.errors import ConfigError, D4KError, did_you_mean
from d4k.plugins import create, registry
from d4k.protocols import Metric

__all__ = ["PACKAGES", "choose_metrics", "metric_record", "of_photographs"]

PACKAGES = {
    "fid": "d4k-fid",
    "clip-score": "d4k-clip",
    "aesthetics": "d4k-clip",
    "glcm": "d4k-glcm",
    "compression-ratio": "d4k-glcm",
}
"""The distribution that brings each metric of `PAPER`."""

COMPARING = frozenset({"reference", "references"})
"""What a metric needs that would compare the photographs with themselves."""


def choose_metrics(settings: BenchmarkSettings, tried: Collection[str] = ()) -> dict[str, Metric]:
    """The metrics by name, each made and, if it is not among `tried`, loaded once on the CPU to see that it can be.

    Where none is named, those of `PAPER` that cannot be had here are left out, with a warning that says why.

    Args:
        settings: of the benchmark.
        tried: names of metrics that are known to load; they come first, in this order.

    Raises:
        UnknownNameError: there is no metric of that name.
        ConfigError: an option is unknown, or for a metric that is not measured.
        CheckpointError: a metric that was named cannot be loaded; the message says which file to put where.
    """
    asked = tuple(dict.fromkeys(settings.metrics)) or PAPER
    wanted = [*(name for name in tried if name in asked), *(name for name in asked if name not in tried)]
    for name in settings.metric_options:
        if name not in wanted:
            raise ConfigError(
                f"options were given for the metric '{name}', which is not measured{did_you_mean(name, wanted)} "
                f"Measured: {', '.join(wanted)}"
            )
    chosen: dict[str, Metric] = {}
    for name in wanted:
        options = dict(settings.metric_options.get(name, {}))
        if settings.metrics or options:
            chosen[name] = _made(name, options, tried)
            continue
        if name not in registry().names("metric"):
            _warn(name, f"no plugin brings it here; install {PACKAGES[name]}")
            continue
        try:
            chosen[name] = _made(name, options, tried)
        except D4KError as error:
            _warn(name, str(error))
    if not chosen:
        raise ConfigError(f"no metric can be measured here; install {PACKAGES['glcm']}, or name one of your own")
    return chosen


def _warn(name: str, why: str) -> None:
    warnings.warn(f"metric '{name}' is left out: {why}", stacklevel=3)


def _made(name: str, options: Mapping[str, Any], tried: Collection[str]) -> Metric:
    if name not in tried:  # on another instance: what it holds is not to fill memory while pictures are sampled
        create("metric", name, **options).load(torch.device("cpu"))
    metric: Metric = create("metric", name, **options)
    return metric


def metric_record(name: str, metric: Metric) -> dict[str, Any]:
    """What the manifest says of a metric: its name, all of its options, and what it says its rows depend on."""
    options = attrs.asdict(metric, filter=lambda field, _: field.init) if attrs.has(type(metric)) else {}  # type: ignore[arg-type]
    observation = getattr(metric, "observation", None)
    return {"name": name, "options": options} | ({} if observation is None else {"observation": dict(observation)})


def of_photographs(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Those that say something of the photographs themselves, which are not to be compared with themselves."""
    return {name: metric for name, metric in metrics.items() if not metric.needs & COMPARING}
