"""Who may write into a folder: the processes of one launch and nobody else, for as long as they live.

Each process holds a lock of the operating system on a hidden file of its own, whose name says which launch it belongs
to. The system releases the lock of a process that ends in any way, so that a crash leaves nothing to clear by hand.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filelock import FileLock

from d4k.errors import OutputError
from d4k.locks import is_held, output_errors, remove_lock

__all__ = ["Claim"]

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
                if is_held(file):
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
            remove_lock(self._own)
            if not self._locks():
                remove_lock(self._one_at_a_time)

    def _locks(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}-*.lock"))
