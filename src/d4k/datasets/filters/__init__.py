"""Filters: what a photograph is measured by, and where the line is drawn; one file each."""

from d4k.datasets.filters.blur import BlurFilter
from d4k.datasets.filters.border import BorderFilter
from d4k.datasets.filters.detail import DetailFilter
from d4k.datasets.filters.jpeg import JpegFilter
from d4k.datasets.filters.judge import judge
from d4k.datasets.filters.noise import NoiseFilter
from d4k.datasets.filters.size import SizeFilter
from d4k.datasets.filters.upscaled import UpscaledFilter

__all__ = [
    "BlurFilter",
    "BorderFilter",
    "DetailFilter",
    "JpegFilter",
    "NoiseFilter",
    "SizeFilter",
    "UpscaledFilter",
    "judge",
]
