"""The command line: parse, call the facade, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k import __version__
from d4k.errors import ConfigError, D4KError, DataError, OutputError

if TYPE_CHECKING:
    from d4k.sampling import SamplingStep

__all__ = ["main"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class Commands(click.Group):
    """Prints a `D4KError` as one line and exits with code 2; anything else is a bug and keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except D4KError as error:
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(2)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """In the order of use."""
        return ["demo", "train", "generate", "evaluate", "plugins"]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="d4k")
def main() -> None:
    """Fine-tune latent diffusion models at 4K, generate images with them, and measure honestly."""


@main.command()
@click.argument("recipe", metavar="[RUN.toml]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Change one setting, e.g. training.steps=100."
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in output_dir.")
@click.option("--device", help="cuda, cuda:1, mps or cpu; chosen by itself when left out.")
def train(recipe: Path | None, settings: tuple[str, ...], resume: bool, device: str | None) -> None:
    """Fine-tune a model as RUN.toml and the settings say.

    \b
    Example:
      d4k train examples/train_tiny.toml --set training.steps=20 --set output_dir=runs/first
    """
    from d4k.config import RunConfig, from_mapping, read_toml, with_settings

    config = from_mapping(RunConfig, with_settings({} if recipe is None else read_toml(recipe), list(settings)))
    from d4k.pipeline import train_from_config

    run = train_from_config(config, device=device, resume=resume)
    last = f"; last loss {run.losses[-1]:.4f}" if run.losses else ""
    click.echo(f"{run.steps} steps done{last}\nmodel: {run.model}\nlosses: {run.output_dir / 'losses.jsonl'}")


@main.command()
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option("--prompts", "prompt_file", type=click.Path(path_type=Path), help="Text file, one prompt a line.")
@click.option("--model", default="tiny-sd3", show_default=True, help="Registered checkpoint, folder or Hub id.")
@click.option("--width", type=int, help="Pixels; the model's own size when left out.")
@click.option("--height", type=int, help="Pixels; the model's own size when left out.")
@click.option("--steps", type=int, help="Euler steps; the backbone's own when left out.")
@click.option("--guidance", type=float, help="Guidance scale; the backbone's own when left out.")
@click.option("--negative-prompt", default="", help="What to steer away from.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every picture.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("images"), show_default=True,
              help="New folder for the pictures, or one .png, .jpg or .webp file.")  # fmt: skip
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--device", help="cuda, cuda:1, mps or cpu; chosen by itself when left out.")
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
    from d4k.pipeline import Pipeline

    pipe = Pipeline.from_pretrained(model, device=options.pop("device"), dtype=options.pop("dtype"))
    with _Bar(len(texts)) as bar:
        for text, file in zip(texts, files, strict=True):
            picture = pipe.generate(text, on_step=bar, **options)[0]
            save_picture(picture, file, recipe=picture.info["d4k"])
            bar.done(file)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--metric", "metrics", metavar="NAME", multiple=True, help="Repeat for several. [default: glcm, compression-ratio]"
)
@click.option("--prompts", "prompt_file", type=click.Path(path_type=Path), help="Text file, one prompt an image.")
@click.option("--reference", type=click.Path(path_type=Path), help="Folder with one reference picture an image.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the scores to this .json file.")
@click.option(
    "--markdown", "markdown_file", type=click.Path(path_type=Path), help="Also write the table to this .md file."
)
def evaluate(
    folder: Path,
    metrics: tuple[str, ...],
    prompt_file: Path | None,
    reference: Path | None,
    json_file: Path | None,
    markdown_file: Path | None,
) -> None:
    """Measure the pictures in FOLDER.

    \b
    Example:
      d4k evaluate images --metric glcm --metric compression-ratio --json scores.json
    """
    from d4k import evaluation
    from d4k.pipeline import metrics_by_name

    chosen = metrics_by_name(metrics or ("glcm", "compression-ratio"))
    prompts = read_prompts(prompt_file) if prompt_file else None
    for file, ending in ((json_file, ".json"), (markdown_file, ".md")):
        if file is not None and file.suffix != ending:
            raise ConfigError(f"cannot write scores to '{file.name}': the ending must be {ending}")
    rows = {folder.name or str(folder): evaluation.evaluate(folder, chosen, prompts=prompts, reference=reference)}
    click.echo(evaluation.score_table(rows))
    count = next(iter(rows.values()))[0].count
    click.echo(f"{count} image{'s' if count != 1 else ''}")
    for file in (json_file, markdown_file):
        if file is not None:
            evaluation.write_scores(rows, file)


@main.command()
def plugins() -> None:
    """List what is registered, and what failed to load and why.

    \b
    Example:
      d4k plugins
    """
    from d4k.plugins import registry

    names = registry()
    rows = [("kind", "name", "plugin", "version", "summary")]
    for entries in names.entries.values():
        rows += [(e.kind, e.name, e.plugin, e.version, e.summary) for e in entries]
    rows[1:] = sorted(rows[1:])
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]))
    problems = [f"{plugin} did not load: {reason}" for plugin, reason in names.failures.items()] + names.clashes()
    if problems:
        click.echo("\nProblems:")
    for problem in problems:
        click.echo(f"  {problem}")


@main.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Made anew.")
@click.option("--steps", type=click.IntRange(min=1), help="Fine-tuning steps, to make it shorter or longer.")
def demo(output: Path, steps: int | None) -> None:
    """Fine-tune a tiny model beyond its size, draw before and after, and score both. Offline, a few minutes.

    \b
    Example:
      d4k demo --output demo
    """
    from d4k.demo import run_demo

    run_demo(output, steps=steps, say=click.echo)


def read_prompts(path: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not empty.

    Raises:
        DataError: it cannot be read, is not text, or holds no prompt.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read prompts from {path}: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); give one prompt a line", path
        ) from error
    if any(ord(letter) < 32 and letter != "\t" for line in lines for letter in line):
        raise DataError(f"{path} is not a text file: it holds control characters; give one prompt a line", path)
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path} holds no prompt; give one a line", path)
    return prompts


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
