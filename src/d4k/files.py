"""Writing that leaves a whole file or none: write beside, fsync, rename.

What is not whole yet lies in a folder `.d4k-XXXXXXXX.part` beside the place where it will be. The process that writes
holds a lock on that folder, which ends with the process. So `sweep` can tell what a killed process left from what
another process is writing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d4k.errors import OutputError

__all__ = ["atomic_file", "atomic_folder", "empty_folder", "refuse_used", "sweep", "write_json", "write_text"]

PREFIX, SUFFIX = ".d4k-", ".part"
OLD = ".old"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; it becomes `path` when the block ends well and vanishes otherwise.

    Args:
        path: the file to write; its folder is made where it is missing.

    Raises:
        OutputError: the disk is full or the folder cannot be written; `path` is as it was before.
    """
    with _as_output_error(path), _beside(path) as temporary:
        temporary.touch()
        yield temporary
        _sync(temporary)
        temporary.replace(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; it replaces `path` when the block ends well and vanishes otherwise.

    Args:
        path: the folder to write; its parent is made where it is missing.

    Raises:
        OutputError: the disk is full or the folder cannot be written; `path` is as it was before.
    """
    with _as_output_error(path), _beside(path) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        _swap(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path of the same name in a locked folder beside `path`; the folder is removed in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, lock = _locked_folder(path.parent)
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """A new temporary folder, and the descriptor that holds its lock; None where folders cannot be locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, suffix=SUFFIX, dir=parent))
        lock = _lock(folder, wait=True)
        if folder.is_dir():  # a sweep between the two lines above took it for a leftover
            return folder, lock
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """The descriptor that holds the lock of a folder; None where another holds it, or where there are no locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _swap(new: Path, path: Path) -> None:
    """Rename `new` to `path`; a folder that is there already goes to be removed, or is put back on failure."""
    if not path.exists():
        new.replace(path)
        return
    old = new.with_name(path.name + OLD)
    try:
        path.replace(old)
        new.replace(path)
    finally:
        if not path.exists():
            old.replace(path)


def sweep(folder: Path) -> list[Path]:
    """Remove what d4k was writing into a folder when it was killed.

    A folder that was being replaced at that moment gets its former content back. What a live process is writing stays,
    and so does everything where the file system has no locks.

    Args:
        folder: looked through, not the folders in it; it need not exist.

    Returns:
        The temporary folders that were removed.
    """
    removed = []
    for leftover in sorted(folder.glob(f"{PREFIX}????????{SUFFIX}/")):
        lock = None if leftover.is_symlink() else _lock(leftover, wait=False)
        if lock is None:
            continue
        try:
            for old in leftover.glob(f"*{OLD}"):
                if not (folder / old.name.removesuffix(OLD)).exists():
                    old.replace(folder / old.name.removesuffix(OLD))
            shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(lock)
        removed.append(leftover)
    return removed


def refuse_used(path: Path) -> None:
    """Accept a path that does not exist or is an empty folder, and make nothing; leftovers in it are swept away.

    Raises:
        OutputError: it is a file, or a folder with something in it.
    """
    with _as_output_error(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"output folder {path} is a file; name another")
        sweep(path)
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
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: a name holds no NUL character")
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left half-written") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
