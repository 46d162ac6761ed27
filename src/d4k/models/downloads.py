"""What loading a model would fetch from the Hub, told before anything is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from d4k.errors import CheckpointError
from d4k.files import is_file, is_folder
from d4k.models.card import read_card
from d4k.models.hub import in_cache
from d4k.models.reference import ModelRef
from d4k.plugins import registry

__all__ = ["missing_from_cache"]

HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:/(.+))?")
MODEL, DENOISER = ("model_index.json", "d4k.json"), ("config.json", "transformer/config.json")
ADAPTER = ("pytorch_lora_weights.safetensors",)
DEPTH = 8


def missing_from_cache(ref: ModelRef) -> list[str]:
    """The Hub ids that loading a model would download for the first time; the Hub is not asked.

    An id is in the cache if its first file is: one of which a part is missing was begun by the user, and is none.

    Args:
        ref: the model, with its denoiser and its adapters; an empty name asks about those alone.

    Returns:
        Hub ids, and paths of single files such as owner/name/file.safetensors, each once.

    >>> missing_from_cache(ModelRef("owner/not-downloaded", adapters={"style.safetensors": 1.0}))
    ['owner/not-downloaded']
    """
    return list(dict.fromkeys(_missing(ref, 0)))


def _missing(ref: ModelRef, depth: int) -> Iterator[str]:
    if ref.name and not _is_here(ref.name):
        yield from _unless_cached(_target(ref.name), MODEL, ref.revision)
    elif ref.name and depth < DEPTH:
        yield from _of_card(ref.name, depth)
    if ref.transformer is not None and not _is_here(ref.transformer):
        yield from _unless_cached(_target(ref.transformer), DENOISER, None)
    for source in ref.adapters:
        if not _is_here(str(source)):
            yield from _unless_cached(str(source), ADAPTER, None)


def _of_card(folder: str, depth: int) -> Iterator[str]:
    """What the base of an adapter would fetch, whose folder stands for the model it was trained on."""
    inner = Path(folder) / "adapter"
    for where in (inner, Path(folder)):
        base = read_card(str(where)).base if is_folder(where, CheckpointError) else None
        if base is not None:
            yield from _missing(base, depth + 1)
            return


def _is_here(name: str) -> bool:
    path = Path(_target(name)).expanduser()
    return is_file(path, CheckpointError) or is_folder(path, CheckpointError)


def _target(name: str) -> str:
    """Where a registered checkpoint is; any other name as it is."""
    entries = registry().entries.get(("checkpoint", name), [])
    return entries[0].target if len(entries) == 1 else name


def _unless_cached(name: str, first: tuple[str, ...], revision: str | None) -> Iterator[str]:
    found = HUB_ID.fullmatch(name)
    if found is None:
        return
    repo, file = found.groups()
    if not any(in_cache(repo, each, revision) for each in ((file,) if file else first)):
        yield name
