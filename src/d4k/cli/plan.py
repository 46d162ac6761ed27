"""`d4k plan`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from d4k.errors import ConfigError

if TYPE_CHECKING:
    from d4k.models import ModelRef
    from d4k.planning import Generation, Memory, Plan, RunPlan

__all__ = ["plan"]


OF_RUN = {
    "model": "model",
    "revision": "revision",
    "variant": "variant",
    "transformer": "transformer",
    "size": "data.width and data.height",
    "batch_size": "training.batch_size",
    "downscale": "backbone.downscale",
    "options": "backbone",
    "adapters": "model",
    "train": "training",
    "train_dtype": "training.precision",
    "precision": "training.precision",
    "adapter_rank": "adapter.rank",
    "optimizer": "optimizer.name",
    "steps": "training.steps",
    "parallel": "parallel.strategy",
    "keep_last": "training.keep_last",
}
"""Options that RUN.toml answers, and by which key."""

OF_TRAINING = (
    "train_dtype", "precision", "adapter_rank", "optimizer", "processes", "steps", "parallel", "keep_last",
)  # fmt: skip
OFFLOADS_OF_TRAINING = ("optimizer", "all")


@click.command()
@click.argument("recipe", metavar="[RUN.toml]", required=False, type=click.Path(path_type=Path))
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Change one setting of RUN.toml.")
@click.option("--model", default="sd3-medium", show_default=True, help="Registered checkpoint, folder or Hub id.")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@click.option("--variant", help="Variant of the weight files, such as fp16.")
@click.option("--transformer", metavar="FILE", help="Plan with another denoiser: file, folder or Hub id.")
@click.option("--adapter", "adapters", metavar="PATH", multiple=True, help="Generate with this adapter; repeatable.")
@click.option("--size", metavar="WxH", help="Size of the pictures in pixels  [default: 4096x4096]")
@click.option("--batch-size", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures at a time.")
@click.option("--downscale", type=int, help="Pixels a latent row stands for; the model's own when left out.")
@click.option("--dtype", default="bfloat16", show_default=True, help="Dtype of the weights when generating.")
@click.option("--quantize", metavar="HOW", help="Hold the denoiser in int8, float8 or nf4 when generating.")
@click.option(
    "--offload",
    type=click.Choice(["model", "group", "optimizer", "all"]),
    help="Generate with weights in CPU memory (model, group), or train with optimizer state or all of it there.",
)
@click.option("--train", is_flag=True, help="Plan training as well.")
@click.option("--train-dtype", help="Dtype of the weights when training; what d4k train loads when left out.")
@click.option("--precision", default="bf16", show_default=True, help="Mixed precision of training: no, bf16 or fp16.")
@click.option("--adapter-rank", type=int, help="Train an adapter of this rank; all weights when left out.")
@click.option("--optimizer", default="adamw", show_default=True, help="Train with this optimizer.")
@click.option("--steps", type=int, help="Count the checkpoints of this many training steps, one each 500.")
@click.option("--processes", type=int, default=1, show_default=True, help="Devices that share a training run.")
@click.option(
    "--parallel",
    type=click.Choice(["auto", "ddp", "fsdp2"]),
    default="auto",
    show_default=True,
    help="How processes share a training run.",
)
@click.option("--keep-last", type=click.IntRange(min=0), default=2, show_default=True, help="Checkpoints kept; 0: all.")
@click.option("--gpu-gb", type=float, default=24.0, show_default=True, help="Memory of the device you have.")
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True, help="Set an option of the backbone.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the plan to this .json file.")
def plan(recipe: Path | None, settings: tuple[str, ...], json_file: Path | None, **given: Any) -> None:
    """Say what generating or training would take, and whether it fits, without loading a weight.

    With RUN.toml, model, size and training are those of the run.

    \b
    Example:
      d4k plan --model sd3-medium --size 4096x4096 --downscale 16 --train --adapter-rank 16
      d4k plan examples/train_sd3_4k.toml --gpu-gb 80
    """
    if json_file is not None and json_file.suffix != ".json":
        raise ConfigError(f"cannot write a plan to '{json_file.name}': the ending must be .json")
    if recipe is None and settings:
        raise ConfigError("--set changes settings of RUN.toml, and none was given: use the options, or give the file")
    asked = _of_options(given) if recipe is None else _of_file(recipe, list(settings), given)
    from d4k.planning import plan as make_plan

    found = make_plan(*asked)
    offload = None if given["offload"] in OFFLOADS_OF_TRAINING else given["offload"]
    for line in _lines(found, given["gpu_gb"], offload, asked):
        click.echo(line)
    if json_file is not None:
        import attrs

        from d4k.files import write_json

        write_json(json_file, attrs.asdict(found))


def _of_options(given: dict[str, Any]) -> tuple[ModelRef, Generation, RunPlan | None]:
    """What the options ask for."""
    width, height = read_size(given["size"] or "4096x4096")
    _warn_of_unused(given)
    from d4k.config import AdapterSettings, with_settings
    from d4k.models import ModelRef
    from d4k.planning import Generation, RunPlan

    downscale, rank, batch = given["downscale"], given["adapter_rank"], given["batch_size"]
    ref = ModelRef(
        given["model"],
        **{name: given[name] for name in ("revision", "variant", "transformer")},
        adapters=dict.fromkeys(given["adapters"], 1.0),
        options=with_settings({} if downscale is None else {"downscale": downscale}, list(given["options"])),
    )
    generation = Generation(width, height, batch, given["dtype"], given["quantize"])
    if not given["train"]:
        return ref, generation, None
    adapter = None if rank is None else AdapterSettings(rank=rank)
    named = {name: given[name] for name in ("precision", "optimizer", "processes", "steps", "keep_last")}
    named |= {"offload": given["offload"]} if given["offload"] in OFFLOADS_OF_TRAINING else {}
    return (
        ref,
        generation,
        RunPlan(batch, adapter=adapter, dtype=given["train_dtype"], strategy=given["parallel"], **named),
    )


def _of_file(recipe: Path, settings: list[str], given: dict[str, Any]) -> tuple[ModelRef, Generation, RunPlan]:
    """What the configuration of a run asks for."""
    for name, key in OF_RUN.items():
        if _is_given(name):
            said = {"options": "--option", "adapters": "--adapter"}.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{said} is what {recipe} says: leave it out, or change the file's {key} with --set")
    if given["offload"] in OFFLOADS_OF_TRAINING:
        raise ConfigError(f"--offload {given['offload']} is what {recipe} says: change its parallel.offload with --set")
    import attrs

    from d4k.config import RunConfig, from_mapping, read_toml, with_settings
    from d4k.planning import of_run

    config = from_mapping(RunConfig, with_settings(read_toml(recipe), settings))
    ref, generation, run = of_run(config, dtype=given["dtype"], quantize=given["quantize"])
    return ref, generation, attrs.evolve(run, processes=given["processes"])


def _is_given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


def _warn_of_unused(given: dict[str, Any]) -> None:
    """Name what is only of training, where training is not planned."""
    unused = [f"--{name.replace('_', '-')}" for name in OF_TRAINING if _is_given(name)]
    if given["offload"] in OFFLOADS_OF_TRAINING:
        unused.append(f"--offload {given['offload']}")
    if unused and not given["train"]:
        click.echo(f"warning: {', '.join(unused)} without --train: ignored", err=True)


def read_size(text: str) -> tuple[int, int]:
    """Width and height of `4096x4096`; one number is a square.

    >>> read_size("3072x4096"), read_size("2048")
    ((3072, 4096), (2048, 2048))
    """
    found = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", text.strip().lower())
    if found is None:
        raise ConfigError(f"cannot read the size '{text}'; write width x height in pixels, such as 3072x4096")
    return int(found[1]), int(found[2] or found[1])


def _lines(plan: Plan, gpu_gb: float, offload: str | None, asked: tuple[Any, ...]) -> Iterator[str]:
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
        checkpointing = plan.settings["checkpointing"]
        ways = {None: None, True: "gradient checkpointing", False: "all activations kept"}
        from d4k.planning import ladder

        yield _verdict("training", plan.training.peaks, gpu_gb, ways[checkpointing], ladder(*asked))


def _table(title: str, memory: Memory) -> Iterator[str]:
    yield ""
    yield f"{title:<48}{'memory':>14}"
    for what, size in memory.rows.items():
        yield f"  {what:<46}{_size(size):>14}"
    for what, size in memory.peaks.items():
        yield f"  {'at the peak, ' + what:<46}{_size(size):>14}"
    for what, size in memory.cpu.items():
        yield f"  {'in CPU memory, ' + what:<46}{_size(size):>14}"


def _verdict(
    doing: str,
    peaks: Mapping[str, int],
    gpu_gb: float,
    chosen: str | None,
    further: Iterable[tuple[str, int]] = (),
) -> str:
    """Whether it fits, and if not the first of the other ways that does; those that come later are not looked at."""
    plain = chosen or next(iter(peaks))
    line, asked = f"{doing} fits a GPU of {gpu_gb:g} GB: ", f"{plain}: {_size(peaks[plain])}"
    if peaks[plain] <= gpu_gb * 1e9:
        return f"{line}yes ({asked})"
    others = () if chosen else ((way, size) for way, size in peaks.items() if way != plain)
    tried = {plain: peaks[plain]}
    for way, size in chain(others, further):
        if way in tried:
            continue
        tried[way] = size
        if size <= gpu_gb * 1e9:
            return f"{line}yes, with {way} ({_size(size)}; {asked})"
    del tried[plain]
    return "; ".join([f"{line}no ({asked})", *(f"with {way}: {_size(size)}" for way, size in tried.items())])


def _flops(count: int) -> str:
    return f"{count / 1e12:,.1f} TFLOP" if count >= 1e11 else f"{count / 1e9:,.1f} GFLOP"


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
