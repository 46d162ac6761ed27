"""Datasets from piles of pictures: every picture is looked at once, and in or out for a reason that is written down."""

from d4k.datasets.build.records import Counts
from d4k.datasets.build.run import Built, build
from d4k.datasets.build.settings import DEFAULT_FILTERS, BuildSettings, read_settings
from d4k.datasets.build.values import Decision, Listed, Outcome, Seen

__all__ = [
    "DEFAULT_FILTERS",
    "BuildSettings",
    "Built",
    "Counts",
    "Decision",
    "Listed",
    "Outcome",
    "Seen",
    "build",
    "read_settings",
]
