"""`d4k benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.cli.adapter import read_scales
from d4k.cli.evaluate import metric_options
from d4k.cli.placement import placement_options
from d4k.config import with_settings
from d4k.errors import ConfigError
from d4k.values import UPSCALER

if TYPE_CHECKING:
    from d4k.benchmark import BenchmarkResult
    from d4k.evaluation import Evaluation
    from d4k.models import ModelRef

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
@click.option("--upscaler", metavar="NAME", default=UPSCALER, show_default=True,
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


def _models(
    models: tuple[str, ...], adapters: tuple[str, ...], options: tuple[str, ...], **files: str | None
) -> list[ModelRef]:
    """The models as they are named; what belongs to one of them is refused where there are several."""
    from d4k.adapters import as_scales
    from d4k.models import ModelRef

    given = [name for name, value in files.items() if value is not None] + ["adapter"] * bool(adapters)
    if given and len(models) > 1:
        raise ConfigError(
            f"--{given[0]} belongs to one model, and {len(models)} are given: benchmark that model by itself, and "
            "compare the two folders with d4k report"
        )
    backbone, scales = with_settings({}, list(options)), as_scales(read_scales(adapters))
    return [ModelRef(name, adapters=scales, options=backbone, **files) for name in models]


def _size(size: int | None, width: int | None, height: int | None) -> tuple[int | None, int | None]:
    if size is not None and (width is not None or height is not None):
        raise ConfigError("--size is width and height in one: leave it out, or --width and --height")
    return (size, size) if size is not None else (width, height)


def _metrics(names: tuple[str, ...], config: Path | None, options: tuple[str, ...]) -> dict[str, Any]:
    """The metrics that are named, on the command line or else in the file, and their options."""
    return {
        "metrics": names or tuple(metric_options(config, ())),
        "metric_options": metric_options(config, options),
    }


def _label(evaluation: Evaluation) -> str:
    """The name of a row, with the upscaler where it is not the usual one."""
    upscaler = evaluation.about.get("upscaler", UPSCALER)
    return evaluation.name if upscaler == UPSCALER else f"{evaluation.name} ({upscaler})"


def _finish(result: BenchmarkResult, *, report: bool) -> None:
    """Print the table, and make the report; in the first process of a launch only."""
    from d4k.evaluation import score_table
    from d4k.processes import first_process

    if not first_process():
        return
    click.echo(score_table({_label(evaluation): evaluation.scores for evaluation in result.evaluations}))
    if report:
        from d4k.report import write_report

        page = write_report(result.folder / "report", result.folders)
        click.echo(f"{page}: look at it in a browser")
