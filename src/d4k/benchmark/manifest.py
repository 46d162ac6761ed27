"""`manifest.json`: everything that the figures of a benchmark follow from, with hashes; checked when it goes on.

Models, metrics and pictures of the dataset may be added at the end of what there is; anything else must be as it was.
"""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from d4k.config import shown
from d4k.errors import OutputError
from d4k.evaluation.statistics import version_of
from d4k.files import is_file, read_json, write_json
from d4k.plugins import registry
from d4k.sampling import versions

__all__ = [
    "FORMAT",
    "MANIFEST",
    "check_manifest",
    "check_pictures",
    "code_versions",
    "plain",
    "read_manifest",
    "record_pictures",
    "write_manifest",
]

MANIFEST = "manifest.json"
FORMAT = 1
KIND = "d4k-benchmark"
GROWING = ("models", "metrics", "dataset.pictures")
"""Lists that may have more at their end than before."""
BESIDE = ("versions", "pictures")
"""What is no setting: other versions only warn, and pictures are compared when they have been measured."""
PACKAGES = ("numpy", "pillow", "torchvision", "transformers")


def code_versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Of d4k, its plugins and the packages that compute; `more` of these, where they are installed."""
    plugins = {entry.plugin: entry.version for entries in registry().entries.values() for entry in entries}
    packages = {name: version_of(name) for name in (*PACKAGES, *more)}
    return {"python": platform.python_version(), **packages, **dict(sorted(plugins.items())), **versions()}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, or None where there is none.

    Raises:
        OutputError: it is unreadable, or of something else.
    """
    path = folder / MANIFEST
    if not is_file(path, OutputError):
        return None
    data = read_json(path, OutputError)
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise OutputError(f"{path} is not of a d4k benchmark; name another output folder")
    if data.get("format") != FORMAT:
        raise OutputError(
            f"{path} has format {data.get('format')!r}, and this d4k reads {FORMAT}; name another output folder"
        )
    return data


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_json(folder / MANIFEST, {"format": FORMAT, "kind": KIND, **content})


def record_pictures(folder: Path, pictures: Mapping[str, str]) -> None:
    """Add the SHA-256 of each picture that was measured, by its path below the folder.

    Raises:
        OutputError: it cannot be written.
    """
    before = {name: part for name, part in (read_manifest(folder) or {}).items() if name not in ("format", "kind")}
    write_manifest(folder, {**before, "pictures": dict(pictures)})


def check_manifest(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a benchmark that was begun with other settings; warn where other versions go on with it.

    Args:
        folder: of the benchmark.
        before: its manifest.
        now: what it would be, as plain values.

    Raises:
        OutputError: a setting changed; the message names it.
    """
    skipped = ("format", "kind", *BESIDE)
    old, new = ({name: part for name, part in one.items() if name not in skipped} for one in (before, now))
    found = next(_changes(old, new, ""), None)
    if found is not None:
        raise OutputError(
            f"{folder} holds a benchmark of other settings: {found}. Give the settings that it was begun with, or name "
            "another folder; models, metrics and pictures of the dataset can only be added at the end"
        )
    then, here = before.get("versions", {}), now["versions"]
    other = [f"{name} {version} (here {here[name]})" for name, version in then.items() if here.get(name) != version]
    if other:
        warnings.warn(
            f"{folder} was begun with {', '.join(other)}: the last bits of pictures and figures may differ",
            stacklevel=2,
        )


def _changes(before: Any, now: Any, name: str) -> Iterator[str]:
    """What differs between two nested values, in words."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from _changes(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    elif isinstance(before, list) and isinstance(now, list) and name in GROWING:
        for number, (one, other) in enumerate(zip(before, now, strict=False)):
            yield from _changes(one, other, f"{name}[{_label(one, number)}]")
        if len(now) < len(before):
            yield f"{name} had {len(before)}, and has {len(now)}: {_label(before[len(now)], len(now))} is missing"
    elif before != now:
        yield f"{name} was {shown(before)}, and is {shown(now)}"


def _label(entry: Any, number: int) -> str:
    return str(entry.get("name", entry.get("id", number))) if isinstance(entry, Mapping) else str(number)


def check_pictures(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse pictures that are no longer what they were when they were measured last.

    Args:
        folder: of the benchmark.
        before: file -> SHA-256, as the manifest has them.
        now: likewise, as they are.

    Raises:
        OutputError: one has changed; the message names it.
    """
    changed = [file for file, sha256 in now.items() if before.get(file, sha256) != sha256]
    if changed:
        raise OutputError(
            f"{folder / changed[0]} is not the picture that was measured before ({len(changed)} such): its SHA-256 is "
            f"another than in {MANIFEST}. Remove it to have it made again"
        )


def plain(content: Any) -> Any:
    """A value as JSON gives it back: lists for tuples, text for paths and keys."""
    return json.loads(json.dumps(content, default=str))
