"""`d4k adapter`: what is done with the files of low-rank adapters."""

from __future__ import annotations

import re
from pathlib import Path

import click

__all__ = ["adapter", "read_scales"]


@click.group()
def adapter() -> None:
    """Merge adapters (LoRA), or convert them.

    To train one, see the section [adapter] of a run; to generate with one, d4k generate --adapter.

    \b
    Example:
      d4k adapter merge tiny-sd3 runs/first:0.8 --output merged
      d4k adapter convert runs/first --layout comfyui --output first.safetensors
    """


@adapter.command()
@click.argument("model")
@click.argument("adapters", metavar="ADAPTER[:WEIGHT]...", nargs=-1)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New folder for the merged model.")
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
def merge(model: str, adapters: tuple[str, ...], output: Path, dtype: str) -> None:
    """Write MODEL with adapters in its weights.

    The output has the diffusers layout. MODEL is a registered checkpoint, a folder or a Hub id; the folder of a run
    with an adapter needs no other.

    \b
    Example:
      d4k adapter merge tiny-sd3 runs/first:0.8 loras/style.safetensors --output merged
    """
    from d4k.errors import ConfigError
    from d4k.files import refuse_used
    from d4k.pipeline import Pipeline

    refuse_used(output)
    pipe = Pipeline.from_pretrained(model, device="cpu", dtype=dtype, adapters=read_scales(adapters))
    if not pipe.adapters:
        raise ConfigError(f"there is no adapter to merge into {model}; name one or more after it")
    pipe.merge_adapters()
    pipe.save_pretrained(output)
    for merged in pipe.merged:
        click.echo(f"{merged.source} with scale {merged.scale:g}")
    click.echo(f"model: {output}")


@adapter.command()
@click.argument("source", metavar="ADAPTER")
@click.option("--layout", default="comfyui", show_default=True, help="comfyui, or diffusers, which d4k writes itself.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New .safetensors file.")
def convert(source: str, layout: str, output: Path) -> None:
    """Write ADAPTER for another program.

    The layout comfyui has the key names and alphas that ComfyUI reads.

    \b
    Example:
      d4k adapter convert runs/first --layout comfyui --output first.safetensors
    """
    from d4k.adapters import read_adapter, write_adapter
    from d4k.errors import OutputError

    if output.exists():
        raise OutputError(f"{output} exists already; name another file")
    read = read_adapter(source)
    write_adapter(read, output, layout=layout)  # type: ignore[arg-type]  # an unknown layout is an error there
    click.echo(f"{len(read.ranks)} layers: {output}")


def read_scales(values: tuple[str, ...]) -> dict[str | Path, float]:
    """Adapters with their weights, from words such as `runs/first:0.8`; without one the weight is 1.

    >>> read_scales(("runs/first:0.8", "C:/loras/style.safetensors"))
    {'runs/first': 0.8, 'C:/loras/style.safetensors': 1.0}
    """
    weights: dict[str | Path, float] = {}
    for value in values:
        match = re.fullmatch(r"(.+):([-+]?\d*\.?\d+)", value)
        source, weight = match.groups() if match else (value, "1")
        weights[source] = float(weight)
    return weights
