"""Prompts from a file, or from a dataset by its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from d4k.config import with_settings
from d4k.errors import ConfigError, DataError, did_you_mean
from d4k.plugins import create, registry

if TYPE_CHECKING:
    from d4k.sampling import Job

__all__ = ["prompts_option", "read_jobs", "read_prompts"]

KEYS = ("text", "prompt", "seed", "width", "height", "negative_prompt", "id")
UNUSED = ("file", "file_name", "recipe")  # so that an index and a dataset's metadata.jsonl can be read as well

prompts_option = click.option(
    "--prompt-option", "prompt_options", metavar="KEY=VALUE", multiple=True,
    help="Of the dataset that --prompts names, e.g. split=eval.",
)  # fmt: skip


def read_prompts(source: str | Path, options: Sequence[str] = ()) -> list[str]:
    """The prompts of `read_jobs` alone."""
    return [job.prompt for job in read_jobs(source, options)]


def read_jobs(source: str | Path, options: Sequence[str] = ()) -> list[Job]:
    """What to draw, from a file or a dataset.

    Args:
        source: a UTF-8 text file with one prompt a line; a `.jsonl` file with one object a line, `text` and optionally
            `seed`, `width`, `height`, `negative_prompt` and `id`; or a registered dataset, whose captions are taken.
        options: of the dataset, as `key=value`.

    Raises:
        DataError: it cannot be read, holds no prompt, or a line is malformed; the message names file and line.
        ConfigError: options were given for a file, or do not suit the dataset.
    """
    from d4k.sampling import Job

    path = Path(source)
    if not path.exists() and str(source) in registry().names("dataset"):
        dataset = create("dataset", str(source), **with_settings({}, list(options)))
        return [Job(dataset[index].caption) for index in range(len(dataset))]
    if options:
        raise ConfigError(f"--prompt-option is for a dataset, but --prompts names the file {path}; leave it out")
    lines = _lines(path)
    parse = _parse if path.suffix == ".jsonl" else lambda text, path, number: Job(text)  # noqa: ARG005
    jobs = [parse(line.strip(), path, number) for number, line in enumerate(lines, 1) if line.strip()]
    if not jobs:
        raise DataError(f"{path} holds no prompt; give one a line", path)
    return jobs


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        known = registry().names("dataset")
        hint = did_you_mean(str(path), known).removesuffix(".")
        raise DataError(f"cannot read prompts from {path}: {error.strerror}{hint}", path) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a text file in UTF-8 (byte {error.start}); give one prompt a line", path
        ) from error
    # not splitlines(), which also ends a line at characters that JSON strings may hold
    lines = text.replace("\r\n", "\n").split("\n")
    if any(ord(letter) < 32 and letter != "\t" for line in lines for letter in line):
        raise DataError(f"{path} is not a text file: it holds control characters; give one prompt a line", path)
    return lines


def _parse(line: str, path: Path, number: int) -> Job:
    """One line of a `.jsonl` file."""
    from d4k.sampling import Job

    try:
        row = json.loads(line)
        return Job(**_arguments(row))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error.msg})", path, number) from error
    except ConfigError as error:
        raise DataError(f"{path}, line {number}: {error}", path, number) from error


def _arguments(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ConfigError(f'it must be an object such as {{"text": "a cat", "seed": 1}}, got {row!r}')
    for key in row:
        if key not in KEYS + UNUSED:
            raise ConfigError(f"unknown key '{key}'{did_you_mean(key, KEYS)} Known: {', '.join(KEYS)}")
    if ("text" in row) == ("prompt" in row):
        raise ConfigError("it must have 'text', the prompt" + (", and not 'prompt' as well" if "text" in row else ""))
    values = {key: row[key] for key in KEYS[2:] if key in row}
    return {"prompt": row.get("text", row.get("prompt")), **values}
