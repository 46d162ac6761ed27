"""Which pictures are measured: files, with the prompts, seeds and references that belong to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from d4k.errors import DataError
from d4k.files import is_file, is_folder, read_bytes, read_json_line
from d4k.images import list_pictures
from d4k.images.read import ENDINGS

__all__ = ["INDEX", "Subject", "find_subjects", "picture_files"]

INDEX = "index.jsonl"
"""What `d4k generate` lists a folder of pictures in: an object a line, with `file`, `prompt` and `seed`."""


@frozen
class Subject:
    """One picture that is to be measured.

    Args:
        id: unique within its set.
        file: its path.
        prompt: what it should show; None where it is not known.
        seed: it was sampled with; None where it is not known.
        reference: the picture it is compared with.
    """

    id: str
    file: Path
    prompt: str | None = None
    seed: int | None = None
    reference: Path | None = None


def find_subjects(
    images: Path | Sequence[Path], prompts: Sequence[str] | None = None, reference: Path | None = None
) -> list[Subject]:
    """The pictures of a folder, or some files, with what is known of each.

    Args:
        images: a folder, whose files are taken in the order of their names, or files. A folder's `index.jsonl` says
            the prompts and seeds of its pictures; what it lists belongs to the set, also where the file is missing.
        prompts: one a picture, in the same order, in place of those of the index.
        reference: folder with one picture for each: of the same name without the ending, or in the same order where no
            name is the same.

    Raises:
        DataError: there is no picture, the numbers of pictures, prompts and references differ, or the index is
            damaged.
    """
    listed: Mapping[str, Mapping[str, Any]] = {}
    if isinstance(images, Path):
        files = picture_files(images)
        listed = _listed(images)
        known = {file.name for file in files}
        files = sorted([*files, *(images / name for name in listed if name not in known)])
    else:
        files = list(images)
    if not files:
        raise DataError("no images to evaluate")
    if prompts is not None and len(prompts) != len(files):
        raise DataError(f"{len(files)} images, but {len(prompts)} prompts: there must be one for each image")
    references = [None] * len(files) if reference is None else _references(reference, files)
    lines = [listed.get(file.name, {}) for file in files]
    texts = [line.get("prompt") for line in lines] if prompts is None else prompts
    return [
        Subject(id, file, prompt, line.get("seed"), other)
        for id, file, prompt, line, other in zip(_ids(files), files, texts, lines, references, strict=True)  # noqa: A001
    ]


def picture_files(folder: Path) -> list[Path]:
    """The files of a folder that have the ending of a picture, sorted; links that lead nowhere, too.

    Raises:
        DataError: the folder is missing or holds none.
    """
    if not is_folder(folder, DataError):
        raise DataError(f"{folder} is not a folder; name one that holds pictures", folder)
    links = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_symlink()]
    lost = [path for path in links if not path.name.startswith(".") and not path.exists()]
    listed = is_file(folder / INDEX, DataError)
    if (lost or listed) and not any(path.suffix.lower() in ENDINGS for path in folder.iterdir() if path not in lost):
        return sorted(lost)
    return sorted([*list_pictures(folder), *lost])


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of a folder's index by the name of the file; empty where there is none.

    The last line may be cut short where its process was killed, and is passed over then, as `d4k generate` does.
    """
    path = folder / INDEX
    if not is_file(path, DataError):
        return {}
    found: dict[str, dict[str, Any]] = {}
    lines = read_bytes(path, DataError).split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip() or number == len(lines):  # what follows the last line break was cut off
            continue
        row = read_json_line(line, path, number)
        name = row.get("file")
        if isinstance(name, str) and name and Path(name).name == name and "\0" not in name:
            found[name] = _checked(row, path, number)
    return found


def _checked(row: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    prompt, seed = row.get("prompt"), row.get("seed")
    if prompt is not None and not isinstance(prompt, str):
        raise DataError(f"{path}, line {number}: prompt must be a string, got {prompt!r}", path, number)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise DataError(f"{path}, line {number}: seed must be a whole number, got {seed!r}", path, number)
    return row


def _ids(files: Sequence[Path]) -> list[str]:
    """Names without ending where they are unique, else names, else paths."""
    for shown in (lambda file: file.stem, lambda file: file.name, str):
        names = [shown(file) for file in files]
        if len(set(names)) == len(names):
            return names
    seen, names = Counter[str](), []
    for file in files:  # the same file several times
        seen[str(file)] += 1
        names.append(f"{file}#{seen[str(file)]}" if seen[str(file)] > 1 else str(file))
    return names


def _references(folder: Path, files: Sequence[Path]) -> list[Path]:
    """One reference for each image, in the order of the names."""
    found = picture_files(folder)
    if len(found) == len(files):
        named = {other.stem: other for other in found}
        alike = named.keys() & {file.stem for file in files}
        if not alike:
            return found
        if len(alike) == len(files):
            return [named[file.stem] for file in files]
        odd = next(file for file in files if file.stem not in alike)
        raise DataError(
            f"{len(alike)} of {len(files)} images have a reference of their name in {folder}, and {odd} has none; name "
            "all references as their images are, or none of them, which pairs them by their order",
            folder,
        )
    missing = [file for file in files if file.stem not in {reference.stem for reference in found}]
    surplus = [reference for reference in found if reference.stem not in {file.stem for file in files}]
    hint = ""
    if len(found) < len(files):
        lone = missing[0] if missing else files[len(found)]
        hint = f"; there is none for {lone}"
    elif surplus:
        hint = f"; {surplus[0]} belongs to none"
    raise DataError(
        f"{len(files)} images, but {len(found)} references in {folder}{hint}: there must be one for each image",
        folder,
    )
