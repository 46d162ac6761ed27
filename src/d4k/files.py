"""Writing that leaves a whole file or none: write beside, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d4k.errors import OutputError

__all__ = ["atomic_file", "atomic_folder", "empty_folder", "refuse_used", "write_json", "write_text"]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` when the block ends well and vanishes otherwise.

    Raises:
        OutputError: the disk is full or the folder cannot be written; `path` is as it was before.
    """
    with _as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it replaces `path` when the block ends well and vanishes otherwise.

    Raises:
        OutputError: the disk is full or the folder cannot be written; `path` is as it was before.
    """
    with _as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            temporary.chmod(0o777 & ~_umask())
            _swap(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    """Rename `new` to `path`; a folder that is there already is removed afterwards, or put back on failure."""
    if not path.exists():
        new.replace(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
    old = aside / path.name
    try:
        path.replace(old)
        new.replace(path)
    finally:
        if not path.exists():
            old.replace(path)
        shutil.rmtree(aside)


def refuse_used(path: Path) -> None:
    """Accept a path that does not exist or is an empty folder, and make nothing.

    Raises:
        OutputError: it is a file, or a folder with something in it.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"output folder {path} is a file; name another")
    if path.is_dir() and any(path.iterdir()):
        raise OutputError(f"output folder {path} exists and is not empty; name another, or empty it first")


def empty_folder(path: Path) -> Path:
    """Make `path` a folder, or accept it if it is an empty one.

    Raises:
        OutputError: it is a file, or a folder with something in it.
    """
    refuse_used(path)
    with _as_output_error(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left half-written") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
