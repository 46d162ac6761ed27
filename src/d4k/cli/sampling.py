"""What a picture is sampled with: the options that `generate` and `upscale` share, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from d4k.config import with_settings
from d4k.errors import ConfigError
from d4k.values import RESTART, UPSCALER

__all__ = ["Values", "WithPresets", "check_sampling", "read_sampling", "sampling_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


class WithPresets(click.Command):
    """Shows the presets of the installed backbones below its help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table, and what wins over it."""
        from d4k.plugins import registry

        rows = [("backbone", "size", "steps", "guidance", "shift", "restart")]
        for name in registry().names("backbone"):
            for preset in registry().entries["backbone", name][0].presets:
                stride = "" if preset.downscale is None else f" (F{preset.downscale})"
                shift = "scheduler's" if preset.shift is None else f"{preset.shift:g}"
                restart = f"{RESTART if preset.restart is None else preset.restart:g}"
                numbers = (str(preset.steps), f"{preset.guidance:g}", shift, restart)
                rows.append((name, f"{preset.size}{stride}", *numbers))
        with formatter.section("Presets, used where neither you nor the model says; the nearest size counts"):
            widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
            for row in rows:
                cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                formatter.write(f"{'':{formatter.current_indent}}{cells.rstrip()}\n")


class Values(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A number, or one for each stage with commas between them.

    Args:
        kind: of the numbers.
        word: that may stand in place of one.
    """

    name = "number[,...]"

    def __init__(self, kind: type[int] | type[float], word: str = "") -> None:
        self.kind, self.word = kind, word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """One value alone, or a list of several."""
        if not isinstance(value, str):
            return value
        values = [self._one(part.strip(), param, ctx) for part in value.split(",")]
        return values[0] if len(values) == 1 else values

    def _one(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if self.word and text == self.word:
            return text
        try:
            return self.kind(text)
        except ValueError:
            whole = "a whole number" if self.kind is int else "a number"
            allowed = f"neither {whole} nor the word {self.word}" if self.word else f"not {whole}"
            self.fail(f"'{text}' is {allowed}", param, ctx)


OPTIONS = {
    "stages": click.option(
        "--stages", metavar="SIZE,...",
        help="Sample at these sizes one after the other, each from the enlarged picture of the one before: sides such "
        "as 1024,2048,4096, sizes such as 1024x768,2048x1536, or auto.",
    ),
    "steps": click.option(
        "--steps", type=Values(int),
        help="Number of sampling steps, or one for each stage. The presets below are the default.",
    ),
    "guidance": click.option(
        "--guidance", type=Values(float),
        help="Guidance scale: how closely a picture follows its prompt. One, or one for each stage. The presets below "
        "are the default.",
    ),
    "shift": click.option(
        "--shift", type=Values(float, "scheduler"),
        help="Shift of the noise levels, or one for each stage; 'scheduler' is the one of the model's own scheduler. "
        "The presets below are the default.",
    ),
    "restart": click.option(
        "--restart", type=Values(float),
        help="Noise level, above 0 and at most 1, that a picture gets before a stage goes on from it: lower keeps more "
        "of the picture. One, or one for each such stage. The presets below are the default.",
    ),
    "strength": click.option(
        "--strength", type=float,
        help="Take this share of the steps from the picture that is given, as diffusers counts: lower keeps more of "
        "it. Stands in place of --restart.",
    ),
    "alignment": click.option(
        "--alignment", type=float,
        help="Strength, from 0 to 1, of the low-frequency guidance that holds a stage to the picture it began with. "
        "0 is the default, which is off.",
    ),
    "cutoff": click.option(
        "--cutoff", type=float,
        help="Which frequencies count as low for --alignment, from 0 to 1 as a share of the highest that the latent "
        "holds.",
    ),
    "upscaler": click.option(
        "--upscaler", metavar="NAME",
        help=f"Enlarge pictures with this upscaler, which d4k plugins lists. The default is {UPSCALER}.",
    ),
    "upscaler_options": click.option(
        "--upscaler-option", "upscaler_options", metavar="KEY=VALUE", multiple=True,
        help="Set an option of the upscaler, such as file=network.safetensors. May be repeated.",
    ),
    "keep_stages": click.option(
        "--keep-stages", is_flag=True,
        help="Leave the picture of each stage in the folder stages below the output, or beside a file.",
    ),
}  # fmt: skip


def sampling_options(*without: str) -> Callable[[Command], Command]:
    """Add all of the options but these to a command."""

    def add(command: Command) -> Command:
        for name in reversed(OPTIONS):
            if name not in without:
                command = OPTIONS[name](command)
        return command

    return add


def read_sampling(settings: Mapping[str, Any], recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of a command, those of these options left out that say nothing, and the upscaler's as a table.

    Args:
        settings: from the command line.
        recorded: options of the upscaler in a recipe, over which those of the command line go.
    """
    given = {name: value for name, value in settings.items() if value is not None or name not in OPTIONS}
    options = with_settings(dict(recorded or {}), list(given.pop("upscaler_options", ())))
    return given | ({"upscaler_options": options} if options else {})


def check_sampling(given: Mapping[str, Any], images: Sequence[Path | None]) -> None:
    """Refuse what makes no sense with any model, before one is loaded.

    Args:
        given: by `read_sampling`.
        images: the picture that each job begins with.

    Raises:
        ConfigError: values contradict each other or cannot be read.
        DataError: a picture is missing, or is none.
        UnknownNameError: there is no such upscaler.
    """
    from d4k.images import picture_size
    from d4k.plugins import create
    from d4k.sampling import is_auto, read_size

    if "strength" in given and "restart" in given:
        raise ConfigError("--strength and --restart both say how much of the picture is kept; give one of them")
    if "strength" in given and not all(images):
        raise ConfigError("--strength is of a picture to begin with, and none is given: name one with --image")
    if "stages" in given and not is_auto(given["stages"]):
        for size in given["stages"].split(","):
            read_size(size, (1, 1), 1)
    if "upscaler" in given or "upscaler_options" in given:
        create("upscaler", given.get("upscaler", UPSCALER), **given.get("upscaler_options", {}))
    for image in dict.fromkeys(images):
        if image is not None:
            picture_size(image)
