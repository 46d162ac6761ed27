"""Finished stages of a picture on disk: what a command that was killed goes on with, and what `--keep-stages` leaves.

    images/.0000-a-cat-seed0.png.1024x1024.png      until the picture is finished
    images/stages/0000-a-cat-seed0/1024x1024.png    with `--keep-stages`, for good
    .cat.png.1024x1024.png, cat-stages/1024x1024.png    the same of a picture that goes into one file, cat.png

A stage is an 8-bit PNG, which loses nothing, with the recipe that makes it alone. It is taken over only where all of
that recipe is what it would be now, versions included.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from PIL import Image

from d4k.errors import DataError, OutputError
from d4k.images import open_picture, read_recipe, save_picture
from d4k.locks import output_errors
from d4k.sampling.loop import SamplingStep
from d4k.sampling.recipe import changes, shown_changes

__all__ = ["STAGES", "Course", "StageFiles", "stage_files", "sweep"]

STAGES = "stages"
"""Folder below a folder of pictures that holds the stages which are kept."""

UNFINISHED = re.compile(r"\.(?P<picture>.+)\.\d+x\d+\.png")
LONGEST = 180
"""Bytes of a picture's name that still leave room for what the names of its stages add."""


@frozen
class StageFiles:
    """Where the finished stages of one picture are.

    Args:
        picture: file of the picture.
        folder: for the stages that are kept.
        keep: leave them there when the picture is finished.
    """

    picture: Path
    folder: Path
    keep: bool = False

    def newest(self, recipes: Sequence[Mapping[str, Any]]) -> tuple[int, Image.Image | None]:
        """How many stages are finished, and the last of these.

        Args:
            recipes: of the stages before that of the picture itself, smallest first.
        """
        for place in reversed(range(len(recipes))):
            if (found := self.find(recipes[place])) is not None:
                for recipe in recipes[: place + 1]:
                    self._show(recipe)
                return place + 1, found
        return 0, None

    def find(self, recipe: Mapping[str, Any]) -> Image.Image | None:
        """The finished stage with a recipe; None where there is none, which is said if there is another."""
        for file in (self._hidden(recipe), self._kept(recipe)):
            if not file.exists():
                continue
            try:
                before, found = read_recipe(file), open_picture(file)
            except DataError as error:
                warnings.warn(f"{error}; the stage is sampled again", stacklevel=2)
                continue
            if not (changed := changes(before, recipe, versions=True)):
                return found
            said = shown_changes(changed, before, recipe)
            warnings.warn(f"{file} was sampled with other settings: {said}; the stage is sampled again", stacklevel=2)
        return None

    def save(self, picture: Image.Image, recipe: Mapping[str, Any]) -> None:
        """Keep a finished stage.

        Raises:
            OutputError: it cannot be written.
        """
        save_picture(picture, self._kept(recipe) if self.keep else self._hidden(recipe), recipe=recipe)

    def _show(self, recipe: Mapping[str, Any]) -> None:
        """Keep a stage for good that a command without `keep_stages` had finished."""
        if self.keep and self._hidden(recipe).exists() and (found := self.find(recipe)) is not None:
            self.save(found, recipe)

    def finish(self) -> None:
        """Remove what the finished picture needs no longer."""
        with output_errors(self.picture.parent):
            for file in self.picture.parent.glob(f".{_glob_escaped(_label(self.picture))}.*.png"):
                if (match := UNFINISHED.fullmatch(file.name)) and match["picture"] == _label(self.picture):
                    file.unlink(missing_ok=True)

    def check(self) -> None:
        """Refuse beforehand what would keep the stages from being written.

        Raises:
            OutputError: something else has the name of their folder.
        """
        for place in (self.folder, self.folder.parent):
            if self.keep and place.exists() and not place.is_dir():
                raise OutputError(f"cannot keep stages in {self.folder}, because {place} is a file; move it away")

    def _hidden(self, recipe: Mapping[str, Any]) -> Path:
        return self.picture.with_name(f".{_label(self.picture)}.{_size(recipe)}.png")

    def _kept(self, recipe: Mapping[str, Any]) -> Path:
        return self.folder / f"{_size(recipe)}.png"


@frozen
class Course:
    """What accompanies a picture while it is made; call it after every step.

    Args:
        on_step: told of every step.
        stages: keeps those that are finished.
    """

    on_step: Callable[[SamplingStep], None]
    stages: StageFiles

    def __call__(self, step: SamplingStep) -> None:
        """Tell of a step."""
        self.on_step(step)


def stage_files(picture: Path, *, single: bool, keep: bool = False) -> StageFiles:
    """Where the stages of a picture go.

    Args:
        picture: file of the picture.
        single: it is no folder's.
        keep: leave them there.

    >>> stage_files(Path("images/0000-a-cat-seed0.png"), single=False).folder.as_posix()
    'images/stages/0000-a-cat-seed0'
    >>> stage_files(Path("cat.png"), single=True).folder.as_posix()
    'cat-stages'
    """
    folder = picture.with_name(f"{picture.stem}-{STAGES}") if single else picture.parent / STAGES / picture.stem
    return StageFiles(picture, folder, keep)


def sweep(folder: Path, finished: Collection[str], wanted: Collection[str]) -> None:
    """Remove unfinished stages of pictures that are finished, and say where there are some of other pictures.

    Args:
        folder: of pictures.
        finished: names of the pictures that are there.
        wanted: names of all that are to be there.
    """
    labels = {_label(folder / name) for name in finished}
    others = labels | {_label(folder / name) for name in wanted}
    found = [(path, match["picture"]) for path in folder.iterdir() if (match := UNFINISHED.fullmatch(path.name))]
    for path, label in found:
        if label in labels:
            path.unlink(missing_ok=True)
    if strange := min((path for path, label in found if label not in others), default=None):
        warnings.warn(
            f"{folder} holds stages of pictures that are not of these prompts and seeds, such as {strange.name}; "
            "delete them if those pictures are not to be gone on with",
            stacklevel=2,
        )


def _label(picture: Path) -> str:
    """Of a picture's unfinished stages; a name that leaves no room becomes a number."""
    name = picture.name
    return name if len(name.encode()) <= LONGEST else hashlib.sha256(name.encode()).hexdigest()[:16]


def _size(recipe: Mapping[str, Any]) -> str:
    return f"{recipe['width']}x{recipe['height']}"


def _glob_escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
