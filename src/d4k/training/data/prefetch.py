"""Loading ahead of the step, in processes of its own, in an order that does not depend on them.

What is loaded comes back by value. Torch's own loader would hand it over in shared memory, of which a container has
64 MB by default: one picture of 4096x4096.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from d4k.errors import D4KError
from d4k.training.data.source import Source, View

__all__ = ["load_ahead"]

AHEAD = 2
"""Views a worker loads ahead of those that the next batch needs."""

WATCH = 1.0
"""Seconds between two looks of a worker at whether the process that trains still lives."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What a terminal and a scheduler send to all processes of a run; the one that trains decides."""

KILLED = (
    "a process that loads pictures ahead of the step was killed, most often because memory ran out: set data.workers "
    "lower, or to 0 to load without such processes, and resume"
)


def load_ahead(
    source: Source, views: Iterable[View], workers: int, needed: int = 1, context: Any = None
) -> Generator[Any, None, None]:
    """What `source.load` makes of each view, in order, loaded in worker processes before it is asked for.

    At most `needed + 2 * workers` loaded views are held at once. The workers end when the iterator is closed, or with
    the process that trains, however that ends.

    Args:
        source: of latents; where processes are not forked it is pickled.
        views: in the order in which they are needed.
        workers: processes; 0 loads in this one.
        needed: views that are taken at once.
        context: of multiprocessing; None is the platform's own.

    Raises:
        DataError: a picture, or its entry in the cache, cannot be read; as `source.load` raises it.
        D4KError: a worker was killed.
    """
    context = context or multiprocessing.get_context()
    if workers and context.get_start_method() != "fork" and not _can_be_pickled(source):
        workers = 0
    if not workers:
        yield from map(source.load, views)
        return
    with _pool(source, workers, context) as pool:
        coming, pending = iter(views), deque[Future[bytes]]()
        while True:
            while len(pending) < needed + AHEAD * workers and (view := next(coming, None)) is not None:
                with _signals_held():
                    pending.append(pool.submit(_load, view))
            if not pending:
                return
            yield _opened(pending.popleft().result())


@contextmanager
def _pool(source: Source, workers: int, context: Any) -> Iterator[ProcessPoolExecutor]:
    """Workers that end with the block or with this process, whichever is first."""
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(source, reader, writer))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise D4KError(KILLED) from error
    finally:
        writer.close()  # tells the workers to end, also those of a pool that is broken
        pool.shutdown(wait=True, cancel_futures=True)
        reader.close()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Keep signals waiting, here and in a worker that begins meanwhile, until that can ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _can_be_pickled(source: Source) -> bool:
    try:
        pickle.dumps(source)
    except Exception as error:  # an object of a plugin may raise anything
        warnings.warn(
            f"data.workers counts as 0, since the dataset cannot be sent to another process ({error}); set it to 0, or "
            "make the dataset picklable",
            stacklevel=3,
        )
        return False
    return True


@frozen
class _Failed:
    """An error that a worker hands over in place of what it should load."""

    error: D4KError


_source: Source
"""What this worker loads from."""


def _begin(source: Source, reader: Connection, writer: Connection) -> None:
    """Begin a worker."""
    global _source
    _source = source
    writer.close()
    for number in SIGNALS:  # the process that trains may want more pictures before it ends
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork, and waiting for them would never end
    threading.Thread(target=_leave_with, args=(reader, os.getppid()), daemon=True).start()


def _leave_with(reader: Connection, parent: int) -> None:
    """End this worker once the process that trains closes its end of the pipe, or is no more."""
    while not wait([reader], WATCH) and os.getppid() == parent:
        pass
    os._exit(1)


def _load(view: View) -> bytes:
    try:
        loaded = _source.load(view)
    except D4KError as error:
        loaded = _Failed(_portable(error))
    stream = io.BytesIO()
    _Pickler(stream, protocol=5).dump(loaded)
    return stream.getvalue()


def _opened(data: bytes) -> Any:
    loaded = pickle.loads(data)
    if isinstance(loaded, _Failed):
        raise loaded.error
    return loaded


def _portable(error: D4KError) -> D4KError:
    """The error itself, or one of the same words where it cannot be pickled."""
    error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error of a plugin may hold anything, and ask for any arguments
        return D4KError(str(error))
    return error


class _Pickler(pickle.Pickler):
    """Pickles a tensor as its own bytes: torch's way would take the whole storage that it is a part of."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not Tensor or obj.device.type != "cpu" or obj.layout != torch.strided or not obj.numel():
            return NotImplemented
        flat = obj.detach().contiguous().reshape(-1).view(torch.uint8)
        return _tensor, (bytearray(flat.numpy()), obj.dtype, tuple(obj.shape))


def _tensor(data: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return torch.frombuffer(data, dtype=dtype).reshape(shape)
