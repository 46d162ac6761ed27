"""`d4k generate`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.cli.placement import load_model, placement_options
from d4k.cli.prompts import read_prompts
from d4k.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from d4k.sampling import SamplingStep

__all__ = ["generate"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@click.command()
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option("--prompts", "prompt_file", type=click.Path(path_type=Path), help="Text file, one prompt a line.")
@click.option("--model", default="tiny-sd3", show_default=True, help="Registered checkpoint, folder or Hub id.")
@click.option("--width", type=int, help="Pixels; the model's own size when left out.")
@click.option("--height", type=int, help="Pixels; the model's own size when left out.")
@click.option("--steps", type=int, help="Euler steps; the backbone's own when left out.")
@click.option("--guidance", type=float, help="Guidance scale; the backbone's own when left out.")
@click.option("--shift", type=float, help="Of the noise levels; the checkpoint's own when left out.")
@click.option("--negative-prompt", default="", help="What to steer away from.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every picture.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("images"), show_default=True,
              help="New folder for the pictures, or one .png, .jpg or .webp file.")  # fmt: skip
@placement_options()
def generate(prompts: tuple[str, ...], prompt_file: Path | None, model: str, output: Path, **options: Any) -> None:
    """Draw one picture for each PROMPT, with the recipe stored inside.

    \b
    Example:
      d4k generate "a tabby cat" "a rocket lifting off at night" --model tiny-sd3 --seed 1 --output cats
    """
    texts = [*prompts, *(read_prompts(prompt_file) if prompt_file else [])]
    if not texts:
        raise ConfigError("no prompt was given; write one in quotes, or pass --prompts FILE")
    files = _targets(output, texts, options["seed"])
    from d4k.images import save_picture

    pipe = load_model(model, options)
    with _Bar(len(texts)) as bar:
        for text, file in zip(texts, files, strict=True):
            picture = pipe.generate(text, on_step=bar, **options)[0]
            save_picture(picture, file, recipe=picture.info["d4k"])
            bar.done(file)


def _targets(output: Path, prompts: list[str], seed: int) -> list[Path]:
    """Where each picture goes: a new folder, or one new file for a single prompt."""
    from d4k.files import empty_folder

    if output.suffix:
        if output.suffix.lower() not in PICTURES:
            raise ConfigError(
                f"cannot write {output}: unknown ending '{output.suffix}'; allowed: {', '.join(PICTURES)}"
            )
        if len(prompts) > 1:
            raise ConfigError(f"{len(prompts)} prompts do not fit into one file, {output}; name a folder")
        if output.exists():
            raise OutputError(f"{output} exists already; name another file")
        return [output]
    empty_folder(output)
    slugs = [re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] for prompt in prompts]
    return [output / f"{i:04d}-{slug or 'image'}-seed{seed}.png" for i, slug in enumerate(slugs)]


class _Bar:
    """Progress over the steps of all pictures, on the error stream."""

    def __init__(self, pictures: int) -> None:
        from tqdm import tqdm

        self.pictures, self.bar = pictures, tqdm(desc="generating", unit="step", delay=0.1, file=sys.stderr)

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, step: SamplingStep) -> None:
        self.bar.total = step.steps * self.pictures
        self.bar.update()

    def done(self, file: Path) -> None:
        self.bar.write(str(file), file=sys.stdout)

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
