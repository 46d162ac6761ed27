"""What metrics need, refused early where it is not there."""

from __future__ import annotations

from collections.abc import Mapping

from d4k.errors import ConfigError
from d4k.protocols import Metric

__all__ = ["HINTS", "check_needs", "is_of_sets", "is_of_whole_sets"]

HINTS = {
    "prompt": "needs prompts: pass --prompts FILE, one line an image (prompts=[...] in Python)",
    "reference": "needs reference images: pass --reference FOLDER (reference=... in Python)",
    "references": "needs reference pictures: pass --references FOLDER (references=... in Python)",
}


def check_needs(
    metrics: Mapping[str, Metric], *, prompts: bool, reference: bool = False, references: bool = False
) -> None:
    """Refuse early: raise ConfigError for the first metric that needs what is not there.

    Args:
        metrics: name -> metric.
        prompts: whether there are prompts.
        reference: whether each picture has a reference picture.
        references: whether there is a set of reference pictures.
    """
    there = {"image": True, "file": True, "prompt": prompts, "reference": reference, "references": references}
    for name, metric in metrics.items():
        for need in sorted(metric.needs):
            if not there.get(need, False):
                raise ConfigError(f"{name} {HINTS.get(need, f'needs {need}, which evaluation does not offer')}")
        if is_of_sets(metric) and metric.needs & {"prompt", "reference"}:
            raise ConfigError(
                f"{name} compares sets, and needs more than the pictures of them ({', '.join(sorted(metric.needs))}), "
                "which evaluation does not offer"
            )


def is_of_sets(metric: Metric) -> bool:
    """Whether a metric compares a set of pictures with a set of references, so that no picture has a score."""
    return "references" in metric.needs


def is_of_whole_sets(metric: Metric) -> bool:
    """Whether a metric sees a set in one go, and gives no rows that could be kept."""
    return bool(getattr(metric, "whole_set", False))
