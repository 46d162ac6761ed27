"""Who may write into a folder: the processes of one launch and nobody else, for as long as they live.

Each process holds a lock of the operating system on a hidden file of its own, whose name says which launch it belongs
to. The system releases the lock of a process that ends in any way, so that a crash leaves nothing to clear by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from d4k.errors import OutputError

__all__ = ["Claim", "held", "output_errors"]

PREFIX = ".d4k-generate"


class Claim:
    """A process's right to write into a folder. Use it in a `with` statement.

    Args:
        folder: exists already.
        launch: what the processes of one launch have in common, and those of another have not.
        rank: of this process within its launch.

    Attributes:
        first: no other process of the launch was writing when this one began.

    Raises:
        OutputError: another launch is writing into the folder, or no lock can be made in it.
    """

    def __init__(self, folder: Path, launch: str, rank: int) -> None:
        self.folder, self.first = folder, True
        self.family, self.name = f"{PREFIX}-{launch}-", f"{PREFIX}-{launch}-{rank}.lock"
        self._one_at_a_time, self._own = FileLock(folder / f"{PREFIX}.lock"), FileLock(folder / self.name)

    def alone(self) -> AbstractContextManager[object]:
        """Keep the other processes of the launch from what they do under the same lock, for a moment."""
        return self._one_at_a_time

    def __enter__(self) -> Claim:
        with output_errors(self.folder), self.alone():
            for file in self._locks():
                if _is_held(file):
                    self.first = False
                    if not file.name.startswith(self.family) or file.name == self.name:
                        raise OutputError(
                            f"another d4k generate is writing into {self.folder} at this moment; wait until it ends, "
                            "or name another folder"
                        )
            self._own.acquire(blocking=False)
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError), self.alone():  # the folder may have been taken away
            _remove(self._own)
            if not self._locks():
                _remove(self._one_at_a_time)

    def _locks(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}-*.lock"))


@contextmanager
def held(file: Path, refusal: str) -> Iterator[None]:
    """Hold the lock on a hidden file, which is removed afterwards.

    Raises:
        OutputError: another process holds it, which `refusal` says, or it cannot be made.
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
        _remove(lock)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors into one that names what could not be written."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write into {path}: {error.strerror or error}; name another folder") from error


def _is_held(file: Path) -> bool:
    """Whether a process that lives holds a lock; the file of one that does not is removed."""
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    _remove(lock)
    return False


def _remove(lock: FileLock) -> None:
    """Remove the file of a lock that is held, then release it: in this order nobody else can hold what is removed."""
    with suppress(OSError):  # Windows removes no file that is open
        Path(lock.lock_file).unlink()
    lock.release(force=True)
