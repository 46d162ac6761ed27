"""What an output may be: a folder of pictures, or one new picture. Everything that can be refused is refused first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from d4k.errors import ConfigError, OutputError
from d4k.images import save_picture
from d4k.locks import held, output_errors
from d4k.sampling.index import INDEX

__all__ = ["PICTURES", "check_output", "is_file", "made", "new_file", "visible"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of an output that is one file."""


def check_output(output: Path, count: int = 1) -> None:
    """Accept a folder that is new, empty or begun by `generate_into`, or a new file for one picture; make nothing.

    Args:
        output: folder or file.
        count: pictures that are to go there.

    Raises:
        ConfigError: the ending of a file is not one of `PICTURES`, or there are several pictures for one file.
        OutputError: it is in use, or nothing can be written there.
    """
    with output_errors(output):
        if "\0" in str(output):
            raise OutputError("the output has a NUL character in its name; name another")
        single = is_file(output, count)
        there = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
        exists = there == output.absolute()
        if single and exists:
            raise OutputError(f"{output} exists already; name another file")
        if not there.is_dir():
            why = "is a file" if exists else f"cannot be made, because {there} is a file"
            raise OutputError(f"output {'' if single else 'folder '}{output} {why}; name another")
        if not os.access(there, os.W_OK | os.X_OK):
            raise OutputError(f"cannot write into {there}: no permission; name another folder")
        if exists:
            _refuse_foreign(output)


def is_file(output: Path, count: int) -> bool:
    """Whether an output is one picture's file and not a folder.

    Raises:
        ConfigError: its ending is unknown, or there are several pictures for one file.
        OutputError: it is a file of another kind, or the system allows no such name.
    """
    with output_errors(output):
        folder = output.is_dir()
    if folder or not output.suffix or output.suffix[1:].isdigit():  # a folder may be called v1.0
        return False
    if output.suffix.lower() not in PICTURES:
        if output.exists():
            raise OutputError(f"output folder {output} is a file; name another")
        raise ConfigError(
            f"cannot write {output}: unknown ending '{output.suffix}'; allowed: {', '.join(PICTURES)}, or a folder's "
            "name without an ending"
        )
    if count > 1:
        raise ConfigError(f"{count} prompts do not fit into one file, {output}; name a folder")
    return True


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds other things and no index, with which every folder of pictures begins."""
    if visible(folder) and not (folder / INDEX).exists():
        raise OutputError(f"output folder {folder} exists and is not empty; name another, or empty it first")


def visible(folder: Path) -> dict[str, os.DirEntry[str]]:
    """Name -> entry of what a folder holds, hidden files apart."""
    with os.scandir(folder) as entries:
        return {entry.name: entry for entry in entries if not entry.name.startswith(".")}


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; on failure, remove what was made if no picture is in it."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # something is in it: a picture, or what another process has begun to write
            if new and not visible(folder).keys() - {INDEX}:
                (folder / INDEX).unlink(missing_ok=True)
            for path in new:
                path.rmdir()


@contextmanager
def new_file(file: Path, recipe: Mapping[str, Any]) -> Iterator[Callable[[Image.Image, Mapping[str, Any]], None]]:
    """Hold the name of a file that does not exist; yields how to write the picture, with its recipe, once.

    Args:
        file: of the picture.
        recipe: that it will have; written once beforehand, for what the format or the folder cannot hold is to be an
            error before the picture has taken hours.

    Raises:
        ConfigError: the recipe is too long for the format.
        OutputError: the file exists, another d4k is writing it, or it cannot be written.
    """
    temporary = file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")

    def write(picture: Image.Image, recipe: Mapping[str, Any]) -> None:
        try:
            save_picture(picture, temporary, recipe=recipe)
        except (ConfigError, OutputError) as error:
            raise type(error)(str(error).replace(temporary.name, file.name)) from error

    def keep(picture: Image.Image, recipe: Mapping[str, Any]) -> None:
        write(picture, recipe)
        _give_new_name(temporary, file)

    busy = f"another d4k generate is writing {file} at this moment; name another file"
    with made(file.parent), held(file.with_name(f".{file.name}.lock"), busy):
        check_output(file)  # once more: no other d4k can make it now
        try:
            write(Image.new("RGB", (1, 1)), recipe)
            yield keep
        finally:
            temporary.unlink(missing_ok=True)


def _give_new_name(temporary: Path, file: Path) -> None:
    """Rename a file to a name that must not exist, also if another program takes the name at the same moment."""
    with output_errors(file):
        try:
            os.link(temporary, file)
        except FileExistsError as error:
            raise OutputError(
                f"{file} was made by another program meanwhile, and is kept; generate it again"
            ) from error
        except OSError:  # a file system without hard links
            if file.exists():
                raise
            temporary.rename(file)
