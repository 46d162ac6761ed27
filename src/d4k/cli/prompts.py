"""Prompts from a file, or from a dataset by its name."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.config import with_settings
from d4k.errors import ConfigError, DataError, did_you_mean
from d4k.files import parse_json, parse_json_line
from d4k.plugins import create, registry

if TYPE_CHECKING:
    from d4k.sampling import Job

__all__ = ["prompts_option", "read_jobs", "read_prompts"]

KEYS = ("text", "prompt", "seed", "width", "height", "negative_prompt", "id", "image")
UNUSED = ("file", "file_name", "recipe")  # so that an index and a dataset's metadata.jsonl can be read as well

prompts_option = click.option(
    "--prompt-option", "prompt_options", metavar="KEY=VALUE", multiple=True,
    help="Set an option of the dataset that --prompts names, such as split=eval. May be repeated.",
)  # fmt: skip


def read_prompts(source: str | Path, options: Sequence[str] = ()) -> list[str]:
    """The prompts of `read_jobs` alone."""
    return [job.prompt for job in read_jobs(source, options)]


def read_jobs(source: str | Path, options: Sequence[str] = ()) -> list[Job]:
    """What to generate, from a file or a dataset.

    Args:
        source: a text file in UTF-8 with one prompt a line, of which empty lines are skipped; a `.jsonl` file with one
            object a line, or a `.json` file with an array of them: `text`, and optionally `seed`, `width`, `height`,
            `negative_prompt`, `id` and `image`, or a string for the prompt alone; or a registered dataset, whose
            captions are taken.
        options: of the dataset, as `key=value`.

    Raises:
        DataError: it cannot be read, holds no prompt, or a line is malformed; the message names file and line.
        ConfigError: options were given for a file, or do not suit the dataset.
    """
    from d4k.sampling import Job

    path = Path(source)
    if str(source) in registry().names("dataset") and not path.is_file():
        dataset = create("dataset", str(source), **with_settings({}, list(options)))
        return [Job(dataset[index].caption) for index in range(len(dataset))]
    if options:
        raise ConfigError(f"--prompt-option is for a dataset, but --prompts names the file {path}; leave it out")
    jobs = list(_parse(_read(path), path))
    if not jobs:
        raise DataError(f"{path} holds no prompt; give one a line", path)
    return jobs


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); give one prompt a line", path
        ) from error
    except (OSError, ValueError) as error:  # the latter for a name with a NUL character
        reason = getattr(error, "strerror", None) or str(error)
        hint = did_you_mean(str(path), registry().names("dataset")).removesuffix(".")
        raise DataError(f"cannot read prompts from {path}: {reason}{hint}", path) from error
    if any(ord(letter) < 32 and letter not in "\t\n\r" for letter in set(text)):
        raise DataError(f"{path} is not a text file: it holds control characters; give one prompt a line", path)
    return text


def _parse(text: str, path: Path) -> Iterator[Job]:
    if path.suffix.lower() == ".json":
        yield from _array(text, path)
        return
    # not splitlines(), which also ends a line at characters that JSON strings may hold
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix.lower() == ".jsonl":
        for number, line in lines:
            yield _job(parse_json_line(line, path, number), path, f"line {number}", number)
        return
    _refuse_json(text, lines, path)
    for number, line in lines:
        yield _job(line, path, f"line {number}", number)


def _array(text: str, path: Path) -> Iterator[Job]:
    rows = parse_json(text, path, DataError)
    if not isinstance(rows, list):
        raise DataError(
            f'{path} must hold an array such as ["a cat", {{"text": "a dog", "seed": 1}}]; for one object a line, '
            "call it .jsonl", path,
        )  # fmt: skip
    for number, row in enumerate(rows, 1):
        yield _job(row, path, f"entry {number}")


def _refuse_json(text: str, lines: Sequence[tuple[int, str]], path: Path) -> None:
    """Refuse JSON under another ending, which would be generated word for word."""
    if not lines or lines[0][1][0] not in "{[":
        return
    for candidate, ending in ((lines[0][1], ".jsonl"), (text, ".json")):
        try:
            found = parse_json(candidate, path, DataError)
        except DataError:
            continue
        if isinstance(found, dict if ending == ".jsonl" else list):
            raise DataError(f"{path} looks like JSON; call it {path.stem}{ending} to have its objects read", path)


def _job(row: Any, path: Path, where: str, number: int | None = None) -> Job:
    from d4k.sampling import Job

    try:
        return Job(row) if isinstance(row, str) else Job(**_arguments(row))
    except ConfigError as error:
        raise DataError(f"{path}, {where}: {error}", path, number) from error


def _arguments(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError(
            f'it must be an object such as {{"text": "a cat", "seed": 1}}, or a string, got {reprlib.repr(row)}'
        )
    for key in row:
        if key not in KEYS + UNUSED:
            raise ConfigError(f"unknown key {key!r}{did_you_mean(key, KEYS)} Known: {', '.join(KEYS)}")
    if ("text" in row) == ("prompt" in row):
        raise ConfigError("it must have 'text', the prompt" + (", and not 'prompt' as well" if "text" in row else ""))
    values = {key: row[key] for key in KEYS[2:] if key in row}
    return {"prompt": row.get("text", row.get("prompt")), **values}
