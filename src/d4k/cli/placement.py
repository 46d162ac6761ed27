"""Where a model comes from and where it is held: the options that commands share, and what `--low-memory` picks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from attrs import evolve
from click.core import ParameterSource

if TYPE_CHECKING:
    from d4k.models import ModelRef
    from d4k.pipeline import Pipeline

__all__ = ["load_model", "placement_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = {
    "device": click.option("--device", help="cuda, cuda:1, mps or cpu; chosen by itself when left out."),
    "dtype": click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16."),
    "revision": click.option("--revision", help="Of a Hub id: branch, tag or commit."),
    "variant": click.option("--variant", help="Of the weight files, such as fp16."),
    "transformer": click.option("--transformer", metavar="FILE", help="Another denoiser: file, folder or Hub id."),
    "offload": click.option("--offload", metavar="HOW", help="Rest weights elsewhere: model, group or disk."),
    "quantize": click.option("--quantize", metavar="HOW", help="Denoiser in fewer bits: int8, float8 or nf4."),
    "attention": click.option("--attention", metavar="NAME", help="Attention back-end, such as native or flash."),
    "compile": click.option("--compile", is_flag=True, help="Compile the denoiser's blocks on their first use."),
    "step_cache": click.option(
        "--step-cache", metavar="NAME", help="Skip what hardly changes between steps: first-block[:0.05]."
    ),
    "memory_gb": click.option("--memory-gb", type=float, help="For the autoencoder; what is free when left out."),
    "low_memory": click.option("--low-memory", is_flag=True, help="Pick dtype, offload and quantize for this machine."),
}


def placement_options(*names: str) -> Callable[[Command], Command]:
    """Add the options of these names to a command, or all of them."""

    def add(command: Command) -> Command:
        for name in reversed(names or tuple(OPTIONS)):
            command = OPTIONS[name](command)
        return command

    return add


def load_model(ref: ModelRef, settings: dict[str, Any]) -> Pipeline:
    """Load a model as the options of `placement_options` say, which are taken out of `settings`.

    Args:
        ref: as the user names it, without revision, variant and transformer.
        settings: of the command.
    """
    from d4k.pipeline import Pipeline

    loading = {name: settings.pop(name) for name in OPTIONS}
    ref = evolve(ref, **{name: loading.pop(name) for name in ("revision", "variant", "transformer")})
    if loading.pop("low_memory"):
        loading |= _pick(ref, loading)
    return Pipeline.from_pretrained(ref, **loading)


def _pick(ref: ModelRef, loading: dict[str, Any]) -> dict[str, str]:
    """What `--low-memory` chooses beside what the user did, told on the error stream."""
    from d4k.machine import choose_device
    from d4k.planning import choose, measure

    machine = measure(choose_device(loading["device"]))
    bytes_each = 4 if _given("dtype") and loading["dtype"] == "float32" else 2
    picked = {}
    for choice in choose(machine, _sizes(ref, bytes_each)):
        if _given(choice.option):
            click.echo(f"low memory: {choice.option} {loading[choice.option]}, as given", err=True)
        else:
            picked[choice.option] = choice.value
            click.echo(f"low memory: {choice.option} {choice.value}: {choice.reason}", err=True)
    return picked


def _sizes(ref: ModelRef, bytes_each: int) -> dict[str, int]:
    """Bytes of the model's parts; downloads it, which loading would do next."""
    from pathlib import Path

    from d4k.models import DENOISER, count, fetch_denoiser, fetch_model, find_model, part_bytes, weight_files

    source = find_model(ref)
    folder, replaced = Path(source.location), DENOISER if source.transformer else ""
    if not folder.is_dir():
        folder = fetch_model(source.location, source.revision, source.variant, without=replaced)
    sizes = part_bytes(folder, bytes_each, source.variant)
    if source.transformer:
        path = fetch_denoiser(source.transformer)
        files = weight_files(path, source.variant) if path.is_dir() else (path,)
        sizes[replaced] = bytes_each * count(files)
    return sizes


def _given(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) == ParameterSource.COMMANDLINE
