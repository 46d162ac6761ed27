"""Many pictures into one folder: names, an index, going on after an interruption, a share for each process."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen
from PIL.Image import Image
from tqdm import tqdm

from d4k.config import optional, whole
from d4k.errors import ConfigError, OutputError
from d4k.files import write_text
from d4k.images import read_recipe, save_picture
from d4k.sampling.loop import SamplingStep
from d4k.sampling.recipe import check_recipe
from d4k.upstream import get_cpu_distributed_information

__all__ = ["INDEX", "Draw", "Job", "Planned", "Progress", "generate_planned", "name_files", "refuse_foreign"]

INDEX = "index.jsonl"
"""Lists a folder of pictures, one JSON object a line: `file`, `prompt`, `seed`, `width`, `height`, `recipe`."""


Draw = Callable[[Mapping[str, Any], Callable[[SamplingStep], None]], Image]


def _is_text(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    if not isinstance(value, str):
        raise ConfigError(f"{attribute.name} must be a string, got {value!r}")


@frozen
class Job:
    """One picture to draw; what is None is decided for all of them.

    Args:
        prompt: what to draw.
        seed: from 0 to 2**63 - 1.
        width: pixels.
        height: pixels.
        negative_prompt: what to steer away from.
        id: names the file in place of the prompt.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    prompt: str = field(validator=_is_text)
    seed: int | None = field(default=None, kw_only=True, validator=optional(whole(0)))
    width: int | None = field(default=None, kw_only=True, validator=optional(whole(1)))
    height: int | None = field(default=None, kw_only=True, validator=optional(whole(1)))
    negative_prompt: str | None = field(default=None, kw_only=True, validator=optional(_is_text))
    id: str | None = field(default=None, kw_only=True, validator=optional(_is_text))

    @seed.validator
    def _check_seed(self, attribute: attrs.Attribute[int | None], value: int | None) -> None:
        if value is not None and value >= 2**63:
            raise ConfigError(f"{attribute.name} must be below 2**63, got {value}")


@frozen
class Planned:
    """A picture that is to be in a folder.

    Args:
        file: where.
        recipe: all that makes it what it is.
    """

    file: Path
    recipe: Mapping[str, Any]

    @property
    def line(self) -> str:
        """Its line in the index."""
        shown = {name: self.recipe[name] for name in ("prompt", "seed", "width", "height")}
        rest = {name: value for name, value in self.recipe.items() if name not in shown}
        return json.dumps({"file": self.file.name, **shown, "recipe": rest}, ensure_ascii=False) + "\n"


def name_files(folder: Path, jobs: Sequence[Job], recipes: Sequence[Mapping[str, Any]]) -> list[Planned]:
    """Give every picture its file: the number of the job, its id or prompt, and the seed.

    >>> [p.file.name for p in name_files(Path("out"), [Job("A tabby cat!")], [{"seed": 3}])]
    ['0000-a-tabby-cat-seed3.png']
    """
    digits = max(4, len(str(len(jobs) - 1)))
    names = [f"{i:0{digits}d}-{_slug(job.id or job.prompt)}" for i, job in enumerate(jobs)]
    return [
        Planned(folder / f"{name}-seed{recipe['seed']}.png", recipe)
        for name, recipe in zip(names, recipes, strict=True)
    ]


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60] or "image"


def generate_planned(
    folder: Path,
    planned: Sequence[Planned],
    draw: Draw,
    *,
    on_step: Callable[[SamplingStep], None] | None = None,
    on_picture: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Draw what is missing of this process's share, and keep the index.

    Args:
        folder: new, empty, or of an earlier call.
        planned: all pictures of the folder.
        draw: from a recipe and a callback for its steps to a picture.
        on_step: called after every step.
        on_picture: called with each file that was drawn.

    Returns:
        The files of the share, in their order.

    Raises:
        ConfigError: nothing is planned.
        OutputError: the folder holds other pictures, or some of other settings, or cannot be written.
    """
    if not planned:
        raise ConfigError("no prompt was given")
    new, process = not folder.exists(), get_cpu_distributed_information()  # of any launcher, not of CPUs only
    share = planned[process.rank :: process.world_size]
    finished = _finished(folder, planned)
    missing = [picture for picture in share if picture.file.name not in finished]
    try:
        _write_index(folder, planned)
        with Progress(len(missing), on_step, quiet=process.rank > 0) as progress:
            for picture in missing:
                save_picture(draw(picture.recipe, progress), picture.file, recipe=picture.recipe)
                _write_index(folder, planned)
                if on_picture is not None:
                    on_picture(picture.file)
    finally:
        if new and not any(picture.file.exists() for picture in planned):
            (folder / INDEX).unlink(missing_ok=True)
            with suppress(OSError):  # another process has begun to write
                folder.rmdir()
    return [picture.file for picture in share]


def refuse_foreign(folder: Path) -> None:
    """Accept a folder that is new, empty, or begun by `generate_planned`.

    Raises:
        OutputError: it is a file, or a folder with other things in it.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output folder {folder} is a file; name another")
    # looked for in this order, since another process may be writing: it begins with the index
    if folder.is_dir() and _visible(folder) and not (folder / INDEX).exists():
        raise OutputError(f"output folder {folder} exists and is not empty; name another, or empty it first")


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def _finished(folder: Path, planned: Sequence[Planned]) -> set[str]:
    """Names of the pictures that are there already; those of other prompts or settings are an error."""
    refuse_foreign(folder)
    if not folder.is_dir():
        return set()
    present = {name for name in _visible(folder) if name.lower().endswith(".png")}
    strange = sorted(present - {picture.file.name for picture in planned})
    if strange:
        raise OutputError(
            f"output folder {folder} holds pictures that are not of these prompts and seeds, such as {strange[0]}; "
            "name another folder, or give the prompts it was begun with"
        )
    for picture in planned:
        if picture.file.name in present:
            _refuse_changed(picture)
    return present


def _refuse_changed(picture: Planned) -> None:
    before, now = check_recipe(read_recipe(picture.file), picture.file), json.loads(json.dumps(dict(picture.recipe)))
    names = [name for name in now | before if name != "versions" and before.get(name) != now.get(name)]
    if names:
        changes = ", ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in names[:3])
        raise OutputError(
            f"{picture.file} was drawn with other settings: {changes}; name another folder, or give the settings that "
            "it was begun with (--recipe reads them from a picture)"
        )


def _write_index(folder: Path, planned: Sequence[Planned]) -> None:
    """List the pictures that are there. Processes may write at once: whoever writes last has seen all pictures."""
    listed = None
    while listed != (there := [picture for picture in planned if picture.file.exists()]):
        write_text(folder / INDEX, "".join(picture.line for picture in there))
        listed = there


class Progress:
    """A bar over the steps of several pictures, on the error stream, with the time that is left.

    Args:
        pictures: in all.
        on_step: called after every step, too.
        quiet: show nothing.
    """

    def __init__(
        self, pictures: int, on_step: Callable[[SamplingStep], None] | None = None, *, quiet: bool = False
    ) -> None:
        self.pictures, self.on_step = pictures, on_step
        self.bar = tqdm(desc="generating", unit="step", delay=0.1, file=sys.stderr, disable=quiet)

    def __enter__(self) -> Progress:
        return self

    def __call__(self, step: SamplingStep) -> None:
        """Count a step."""
        self.bar.total = step.steps * self.pictures
        self.bar.update()
        if self.on_step is not None:
            self.on_step(step)

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
