"""`d4k plan`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.planning import Memory, Plan

__all__ = ["plan"]


@click.command()
@click.option("--model", default="sd3-medium", show_default=True, help="Registered checkpoint, folder or Hub id.")
@click.option("--size", default="4096x4096", show_default=True, metavar="WxH", help="Of the pictures, in pixels.")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures at a time.")
@click.option("--downscale", type=int, help="Pixels a latent row stands for; the model's own when left out.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Of the weights when generating.")
@click.option("--quantize", help="int8, float8 or nf4: of the denoiser's weights when generating.")
@click.option("--offload", type=click.Choice(["model", "group"]), help="Which row the last line is about.")
@click.option("--train", is_flag=True, help="Plan training as well.")
@click.option("--train-dtype", default="float32", show_default=True, help="Of the weights when training.")
@click.option("--precision", default="bf16", show_default=True, help="Mixed precision of training: no, bf16 or fp16.")
@click.option("--adapter-rank", type=int, help="Train an adapter of this rank; all weights when left out.")
@click.option("--optimizer", default="adamw", show_default=True, help="adamw or adamw-8bit.")
@click.option("--processes", type=int, default=1, show_default=True, help="Devices that share a training run.")
@click.option("--gpu-gb", type=float, default=24.0, show_default=True, help="Memory of the device you have.")
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True, help="Of the backbone; repeat for several.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the plan to this .json file.")
def plan(
    model: str,
    size: str,
    downscale: int | None,
    offload: str | None,
    gpu_gb: float,
    options: tuple[str, ...],
    json_file: Path | None,
    **settings: Any,
) -> None:
    """Say what generating or training would take, and whether it fits, without loading a weight.

    \b
    Example:
      d4k plan --model sd3-medium --size 4096x4096 --downscale 16 --train --adapter-rank 16
    """
    width, height = read_size(size)
    if json_file is not None and json_file.suffix != ".json":
        raise ConfigError(f"cannot write a plan to '{json_file.name}': the ending must be .json")
    from d4k.config import with_settings
    from d4k.planning import plan as make_plan

    chosen = with_settings({} if downscale is None else {"downscale": downscale}, list(options))
    _warn_of_unused(settings)
    found = make_plan(model, width=width, height=height, **settings, **chosen)
    for line in _lines(found, gpu_gb, offload):
        click.echo(line)
    if json_file is not None:
        import attrs

        from d4k.files import write_json

        write_json(json_file, attrs.asdict(found))


def _warn_of_unused(settings: dict[str, Any]) -> None:
    """Name what is only of training, where training is not planned."""
    given = click.get_current_context().get_parameter_source
    training = ("train_dtype", "precision", "adapter_rank", "optimizer", "processes")
    unused = [f"--{name.replace('_', '-')}" for name in training if given(name) is not ParameterSource.DEFAULT]
    if unused and not settings["train"]:
        click.echo(f"warning: {', '.join(unused)} without --train: ignored", err=True)


def read_size(text: str) -> tuple[int, int]:
    """Width and height of `4096x4096`; one number is a square.

    >>> read_size("3072x4096"), read_size("2048")
    ((3072, 4096), (2048, 2048))
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text.strip().lower())
    if found is None:
        raise ConfigError(f"cannot read the size '{text}'; write width x height in pixels, such as 3072x4096")
    return int(found[1]), int(found[2] or found[1])


def _lines(plan: Plan, gpu_gb: float, offload: str | None) -> Iterator[str]:
    channels, rows, columns = plan.latent
    width, height = plan.settings["width"], plan.settings["height"]
    yield f"{plan.model}, {width}x{height} pixels"
    yield ", ".join(f"{k}={v}" for k, v in plan.settings.items() if v is not None and k not in ("width", "height"))
    yield f"latent {channels}x{rows}x{columns}: {plan.tokens:,} tokens, and {plan.text_tokens:,} of the text"
    passes = f"; training on a batch {_flops(plan.training_flops)}" if plan.training_flops else ""
    yield f"a sampling step {_flops(plan.flops)}{passes}"
    yield ""
    yield f"{'model':<34}{'parameters':>14}{'memory':>14}"
    for part in plan.parts:
        yield f"  {part.name:<32}{part.parameters / 1e6:>12,.1f} M{_size(part.size):>14}"
    yield from _table("generating", plan.generation)
    if plan.training is not None:
        yield from _table("training, each process", plan.training)
    yield ""
    yield "files: " + ", ".join(f"{what} {_size(size)}" for what, size in plan.disk.items())
    yield _verdict("generating", plan.generation.peaks, gpu_gb, f"offload {offload}" if offload else None)
    if plan.training is not None:
        yield _verdict("training", plan.training.peaks, gpu_gb, None)


def _table(title: str, memory: Memory) -> Iterator[str]:
    yield ""
    yield f"{title:<48}{'memory':>14}"
    for what, size in memory.rows.items():
        yield f"  {what:<46}{_size(size):>14}"
    for what, size in memory.peaks.items():
        yield f"  {'at the peak, ' + what:<46}{_size(size):>14}"


def _verdict(doing: str, peaks: Mapping[str, int], gpu_gb: float, chosen: str | None) -> str:
    """Whether it fits, and if not what would."""
    (plain, *others) = [chosen] if chosen else list(peaks)
    fits = peaks[plain] <= gpu_gb * 1e9
    line = f"{doing} fits a GPU of {gpu_gb:g} GB: {'yes' if fits else 'no'} ({plain}: {_size(peaks[plain])})"
    return line if fits or not others else line + "; " + "; ".join(f"with {way}: {_size(peaks[way])}" for way in others)


def _flops(count: int) -> str:
    return f"{count / 1e12:,.1f} TFLOP" if count >= 1e11 else f"{count / 1e9:,.1f} GFLOP"


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
