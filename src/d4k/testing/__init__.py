"""The contracts of the protocols as checks: run one line against your implementation.

Each check raises AssertionError with a sentence that says which part of the contract does not hold.
"""

from d4k.testing.backbones import check_backbone
from d4k.testing.captioners import check_captioner
from d4k.testing.datasets import check_dataset
from d4k.testing.filters import check_filter
from d4k.testing.losses import check_loss
from d4k.testing.metrics import check_metric
from d4k.testing.reference import check_against_diffusers
from d4k.testing.shapes import check_shapes
from d4k.testing.upscalers import check_upscaler

__all__ = [
    "check_against_diffusers",
    "check_backbone",
    "check_captioner",
    "check_dataset",
    "check_filter",
    "check_loss",
    "check_metric",
    "check_shapes",
    "check_upscaler",
]
