"""From models and a dataset to a table that can be trusted: sampled, measured, and gone on with at every picture."""

from d4k.benchmark.manifest import MANIFEST
from d4k.benchmark.plan import PHOTOGRAPHS, UPSCALED
from d4k.benchmark.run import BenchmarkResult, run_benchmark
from d4k.benchmark.settings import PAPER, BenchmarkSettings

__all__ = ["MANIFEST", "PAPER", "PHOTOGRAPHS", "UPSCALED", "BenchmarkResult", "BenchmarkSettings", "run_benchmark"]
