"""`d4k benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.cli.placement import placement_options
from d4k.config import with_settings

if TYPE_CHECKING:
    pass

__all__ = ["benchmark"]

PLACEMENT = (
    "device", "dtype", "revision", "variant", "transformer", "offload", "quantize", "attention", "compile",
    "step_cache", "memory_gb",
)  # fmt: skip
OF_ONE = ("revision", "variant", "transformer")
"""What belongs to one model, and is refused where there are several."""


@click.command()
@click.option("--model", "models", metavar="MODEL", multiple=True, required=True,
              help="Let this model take part: a name that d4k plugins lists, a folder, a run, or a Hub id. Repeat for "
              "several.")  # fmt: skip
@click.option("--adapter", "adapters", metavar="PATH[:SCALE]", multiple=True,
              help="Switch on an adapter (LoRA), where there is one model. May be repeated.")  # fmt: skip
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True,
              help="Set an option of every model's backbone, such as downscale=16. May be repeated.")  # fmt: skip
@click.option("--dataset", default="aesthetic-4k", show_default=True,
              help="Compare with this dataset, whose captions are the prompts: a name that d4k plugins "
              "lists.")  # fmt: skip
@click.option("--dataset-option", "dataset_options", metavar="KEY=VALUE", multiple=True,
              help="Set an option of the dataset, such as source=photos. May be repeated.")  # fmt: skip
@click.option("--split", help="Take this split of the dataset, such as eval-2048 or eval-4096.")
@click.option("--size", type=int, help="Width and height of all pictures in pixels. The number that the split ends "
              "in, or else the models' own size, is the default.")  # fmt: skip
@click.option("--width", type=int, help="Width in pixels, where it is another than the height.")
@click.option("--height", type=int, help="Height in pixels, where it is another than the width.")
@click.option("--limit", type=click.IntRange(1), help="Take only so many pictures, the first ones.")
@click.option("--metric", "metrics", metavar="NAME", multiple=True,
              help="Measure this. Repeat for several. [default: those of fid, clip-score, aesthetics, glcm and "
              "compression-ratio that can be had here]")  # fmt: skip
@click.option("--metric-option", "metric_options", metavar="NAME.KEY=VALUE", multiple=True,
              help="Set an option of a metric. May be repeated.")  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path),
              help="A TOML file that names metrics with their options, a table [metrics.NAME] each.")  # fmt: skip
@click.option("--steps", type=int, help="Number of sampling steps. What each model samples with is the default.")
@click.option("--guidance", type=float, help="Guidance scale. What each model samples with is the default.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True,
              help="Seed of the starting noise, from which every picture has a number of its own.")  # fmt: skip
@click.option("--upscaler", metavar="NAME", default="lanczos", show_default=True,
              help="Enlarge with this what the models sample at their own size.")  # fmt: skip
@click.option("--upscaler-option", "upscaler_options", metavar="KEY=VALUE", multiple=True,
              help="Set an option of the upscaler. May be repeated.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), required=True,
              help="Write into this folder, which is new or is gone on with.")  # fmt: skip
@click.option("--no-report", is_flag=True, help="Make no report to look at in a browser.")
@placement_options(*PLACEMENT)
def benchmark(output: Path, config: Path | None, no_report: bool, **given: Any) -> None:
    """Sample, score and report: how good are models, beside photographs, and beside their own enlarged pictures?

    Run the command again to go on after an interruption, at the picture where it was. Under `accelerate launch -m`
    every process does its share.

    \b
    Example:
      d4k benchmark --model tiny-sd3 --dataset sample-photos --size 384 --limit 4 --output bench
      d4k benchmark --model runs/first --model sd3-medium --split eval-2048 --output bench
    """
    from d4k.benchmark import BenchmarkSettings, run_benchmark
    from d4k.models import Loading

    keys = ("models", "adapters", "options", *OF_ONE)
    models = _models(**{key: given.pop(key) for key in keys})
    loading = Loading(**{name: given.pop(name) for name in PLACEMENT if name not in OF_ONE})
    width, height = _size(given.pop("size"), given.pop("width"), given.pop("height"))
    for name in ("dataset_options", "upscaler_options"):
        given[name] = with_settings({}, list(given[name]))
    metrics = _metrics(given.pop("metrics"), config, given.pop("metric_options"))
    settings = BenchmarkSettings(models=models, width=width, height=height, loading=loading, **metrics, **given)
    result = run_benchmark(output, settings, say=lambda line: click.echo(line, err=True))
    _finish(result, report=not no_report)
