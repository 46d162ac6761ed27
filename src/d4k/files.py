"""Writing that leaves a whole file or none (write beside, fsync, rename), and reading whose faults are all d4k's.

What is not whole yet lies in a folder `.d4k-XXXXXXXX.part` beside the place where it will be. The process that writes
holds a lock on that folder, which ends with the process. So `sweep` can tell what a killed process left from what
another process is writing.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from d4k.errors import D4KError, DataError, OutputError

__all__ = [
    "atomic_file",
    "atomic_folder",
    "empty_folder",
    "is_file",
    "is_folder",
    "json_number",
    "parse_json",
    "parse_json_line",
    "read_bytes",
    "read_json",
    "read_json_line",
    "refuse_unwritable",
    "refuse_used",
    "remove_folder",
    "sweep",
    "write_json",
    "write_text",
]

DEPTH, DIGITS = 64, 64  # of JSON: what is nested deeper, or has longer integers, is no record
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


def remove_folder(path: Path) -> None:
    """Remove a folder: to whoever looks at its name it is whole, or gone, also after a kill; `sweep` finds the rest.

    Raises:
        OutputError: it cannot be moved away, and is as it was.
    """
    with _as_output_error(path), _beside(path) as temporary:
        path.replace(temporary)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path of the same name in a locked folder beside `path`; the folder is removed in the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, lock = _locked_folder(path.parent)
    try:
        yield folder / path.name
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:  # Ctrl-C in the middle of it must not leave a lock that a later sweep in this process would respect
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


def refuse_used(path: Path, besides: Container[str] = ()) -> None:
    """Accept a path that does not exist or is an empty folder, and make nothing; leftovers in it are swept away.

    Args:
        path: to look at.
        besides: names that may be in the folder all the same.

    Raises:
        OutputError: it is a file, or a folder with something in it.
    """
    with _as_output_error(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"output folder {path} is a file; name another")
        sweep(path)
        if path.is_dir() and any(found.name not in besides for found in path.iterdir()):
            raise OutputError(f"output folder {path} exists and is not empty; name another, or empty it first")


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that could not be made, or into which nothing could be written; nothing stays of the trial.

    Raises:
        OutputError: it could not; the message says why.
    """
    with _as_output_error(folder):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryDirectory(prefix=PREFIX, suffix=SUFFIX, dir=there):
            pass


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


def is_file(path: Path, error: type[D4KError]) -> bool:
    """Whether there is a file; a path that cannot be one (too long, with a NUL, below a file, a loop of links) is none.

    Args:
        path: to look at.
        error: raised where the path may not be looked at.
    """
    return _looks(path, path.is_file, error)


def is_folder(path: Path, error: type[D4KError]) -> bool:
    """As `is_file`, of a folder."""
    return _looks(path, path.is_dir, error)


def _looks(path: Path, question: Callable[[], bool], error: type[D4KError]) -> bool:
    try:
        return question()
    except PermissionError as fault:
        raise error(f"cannot look at {path}: {fault.strerror or fault}; may you read it and its folder?") from fault
    except (OSError, ValueError, RuntimeError):  # too long; a NUL; a loop of links is a RuntimeError to some versions
        return False


def read_bytes(path: Path, error: type[D4KError]) -> bytes:
    """What a file holds.

    Args:
        path: of the file.
        error: raised where it cannot be read, whatever the reason.
    """
    try:
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as fault:
        raise error(f"cannot read {path}: {getattr(fault, 'strerror', None) or fault}") from fault


def json_number(value: float) -> float | None:
    """A number as JSON has it, which knows neither NaN nor infinity: None in their place."""
    return value if math.isfinite(value) else None


def parse_json(content: str | bytes, where: object, error: type[D4KError], *, finite: bool = True) -> Any:
    """Plain values from JSON that nobody vouches for.

    Args:
        content: JSON; bytes are UTF-8, with or without a byte-order mark.
        where: what messages call it, such as its path.
        error: raised for whatever is wrong with it.
        finite: refuse NaN and infinity, which JSON does not know and Python writes all the same.

    Raises:
        D4KError: of the type `error`: it is not JSON or not UTF-8, is nested more than 64 deep, or holds an integer of
            more than 64 digits, a number that is not finite, or half a character (a lone surrogate).

    >>> parse_json('{"seed": 1}', "the record", DataError)
    {'seed': 1}
    """
    try:
        decoded = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        value = json.loads(
            decoded,
            parse_int=_integer,
            parse_float=_float if finite else float,
            parse_constant=_refuse_constant if finite else None,
        )
        _check_values(value, 0)
    except (ValueError, RecursionError) as fault:
        reason = "it is nested too deep" if isinstance(fault, RecursionError) else str(fault)
        raise error(f"{where} is not readable JSON: {reason}") from fault
    return value


def read_json(path: Path, error: type[D4KError], *, finite: bool = True) -> Any:
    """As `parse_json`, of a file.

    Raises:
        D4KError: of the type `error`, also where the file cannot be read.
    """
    return parse_json(read_bytes(path, error), path, error, finite=finite)


def parse_json_line(line: str | bytes, path: Path, number: int) -> Any:
    """The value in one line of a JSONL file, as `parse_json` reads it.

    Args:
        line: one line.
        path: of the file, for messages.
        number: of the line, from 1.

    Raises:
        DataError: it is none; `path` and `line` are set.
    """
    try:
        return parse_json(line, f"{path}, line {number}", DataError)
    except DataError as error:
        raise DataError(str(error), path, number) from error


def read_json_line(line: str | bytes, path: Path, number: int) -> dict[str, Any]:
    """As `parse_json_line`, of a line that must hold an object.

    Raises:
        DataError: it holds none; `path` and `line` are set.
    """
    row = parse_json_line(line, path, number)
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number} holds a {type(row).__name__}, not a JSON object", path, number)
    return row


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is no number")


def _check_values(value: Any, depth: int) -> None:
    """Refuse half a character, which no file can hold as text, and what is nested too deep to be meant."""
    if depth > DEPTH:
        raise RecursionError
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_values(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_values(inner, depth + 1)


def _check_text(value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds half a character (the lone surrogate {value[error.start]!r})") from error


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    if "\0" in str(path):
        raise OutputError(f"cannot write {str(path)!r}: the name of a file cannot hold a NUL; name another")
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; nothing was left half-written") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
