"""What is to be generated, picture by picture, and which file each picture goes to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen

from d4k.config import optional, whole
from d4k.errors import ConfigError

__all__ = ["Job", "Target", "fill_jobs", "name_files"]


def _is_text(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:  # noqa: ARG001
    """A string that a file in UTF-8 and a tokenizer can hold."""
    if not isinstance(value, str):
        raise ConfigError(f"{attribute.name} must be a string, got {value!r}")
    if "\0" in value:
        raise ConfigError(f"{attribute.name} holds a NUL character at place {value.index(chr(0)) + 1}; take it out")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{attribute.name} is no valid Unicode text: half a character (a lone surrogate) stands at place "
            f"{error.start + 1}; take it out"
        ) from error


def _is_path(owner: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Path):
        raise ConfigError(f"{attribute.name} must be the path of a picture, got {value!r}")
    _is_text(owner, attribute, str(value))


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


@frozen
class Job:
    """One picture to generate. What is None is decided for all jobs together.

    Args:
        prompt: describes the picture; may be empty, which asks for a picture of anything.
        seed: of the starting noise, from 0 to 2**63 - 1.
        width: in pixels.
        height: in pixels.
        negative_prompt: what classifier-free guidance steers away from.
        id: names the file in place of the prompt.
        image: file of a picture to begin with in place of noise.

    Raises:
        ConfigError: a value is of the wrong type or out of range, or a text cannot be written in UTF-8.
    """

    prompt: str = field(validator=_is_text)
    seed: int | None = field(default=None, kw_only=True, validator=optional(whole(0)))
    width: int | None = field(default=None, kw_only=True, validator=optional(whole(1)))
    height: int | None = field(default=None, kw_only=True, validator=optional(whole(1)))
    negative_prompt: str | None = field(default=None, kw_only=True, validator=optional(_is_text))
    id: str | None = field(default=None, kw_only=True, validator=optional(_is_text))
    image: Path | None = field(default=None, kw_only=True, converter=_as_path, validator=optional(_is_path))

    @seed.validator
    def _check_seed(self, attribute: attrs.Attribute[int | None], value: int | None) -> None:
        if value is not None and value >= 2**63:
            raise ConfigError(f"{attribute.name} must be below 2**63, got {value}")


@frozen
class Target:
    """A picture and the file it goes to.

    Args:
        file: path of the picture.
        job: what to generate.
    """

    file: Path
    job: Job


def fill_jobs(jobs: Sequence[str | Job], **defaults: Any) -> list[Job]:
    """Give every job the values that it has none of its own for.

    Args:
        jobs: prompts or jobs.
        defaults: by the names of `Job`'s fields.

    Raises:
        ConfigError: a default is of the wrong type or out of range.

    >>> fill_jobs(["a cat", Job("a dog", seed=5)], seed=3)[1].seed
    5
    """
    filled = []
    for given in jobs:
        job = Job(given) if isinstance(given, str) else given
        missing = {name: value for name, value in defaults.items() if getattr(job, name) is None}
        filled.append(attrs.evolve(job, **missing) if missing else job)
    return filled


def name_files(folder: Path, jobs: Sequence[Job]) -> list[Target]:
    """Give every picture of a folder its file: the number of the job, its id or prompt, and the seed.

    >>> [target.file.name for target in name_files(Path("out"), [Job("A tabby cat!", seed=3)])]
    ['0000-a-tabby-cat-seed3.png']
    """
    digits = max(4, len(str(len(jobs) - 1)))
    return [
        Target(folder / f"{number:0{digits}d}-{_slug(job.id or job.prompt)}-seed{job.seed}.png", job)
        for number, job in enumerate(jobs)
    ]


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60] or "image"
