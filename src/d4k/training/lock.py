"""Who may write into a run's folder: one launch, for as long as it lives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from d4k.errors import OutputError
from d4k.files import is_folder
from d4k.locks import held, is_held, output_errors
from d4k.models import RunFolder
from d4k.processes import Processes

__all__ = ["LOCK", "owned", "refuse_running"]

LOCK = ".d4k-train.lock"
"""In the folder of a run: the file whose lock its process holds."""


@contextmanager
def owned(run: RunFolder, processes: Processes) -> Iterator[None]:
    """Make the folder of a run, and hold it for this launch; a folder that was made and is empty is removed.

    Args:
        run: where it is kept.
        processes: of the launch; the first holds the folder for all.

    Raises:
        OutputError: another launch trains in the folder, or it cannot be made.
    """
    with ExitStack() as stack:
        with processes.together():
            if processes.first:
                stack.enter_context(_held(run))
        yield


@contextmanager
def _held(run: RunFolder) -> Iterator[None]:
    new = [path for path in (run.path, *run.path.parents) if not path.exists()]
    with output_errors(run.path):
        run.path.mkdir(parents=True, exist_ok=True)
    try:
        with held(run.path / LOCK, _refusal(run)):
            yield
    finally:
        with suppress(OSError):  # the run is in it
            for path in new:
                path.rmdir()


def refuse_running(run: RunFolder) -> None:
    """Refuse a folder in which a process trains at this moment.

    Raises:
        OutputError: one does.
    """
    file = run.path / LOCK
    if is_folder(run.path, OutputError) and file.exists() and is_held(file):
        raise OutputError(_refusal(run))


def _refusal(run: RunFolder) -> str:
    return f"another d4k train is running in {run.path}: wait until it ends, stop it, or name another output_dir"
