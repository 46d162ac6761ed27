"""Locks of the operating system on hidden files: each ends with the process that holds it, however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from d4k.errors import OutputError

__all__ = ["held", "is_held", "output_errors", "remove_lock"]


@contextmanager
def held(file: Path, refusal: str) -> Iterator[None]:
    """Hold the lock on a hidden file, which is removed afterwards.

    Args:
        file: in a folder that exists.
        refusal: what is said where another process holds it.

    Raises:
        OutputError: another process holds it, or it cannot be made.
    """
    lock = FileLock(file)
    with output_errors(file):
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise OutputError(refusal) from error
    try:
        yield
    finally:
        remove_lock(lock)


def is_held(file: Path) -> bool:
    """Whether a process that lives holds a lock; the file of one that does not is removed."""
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    remove_lock(lock)
    return False


def remove_lock(lock: FileLock) -> None:
    """Remove the file of a lock that is held, then release it: in this order nobody else can hold what is removed."""
    with suppress(OSError):  # Windows removes no file that is open
        Path(lock.lock_file).unlink()
    lock.release(force=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into one that names what could not be written.

    Raises:
        OutputError: in place of OSError.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write into {path}: {error.strerror or error}; name another folder") from error
