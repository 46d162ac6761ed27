"""Observing pictures: decoded in threads, a batch at a time, and kept after every batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor
from tqdm.auto import tqdm

from d4k.errors import D4KError, DataError
from d4k.evaluation.faults import Flaw, FlawError, Look, decode
from d4k.evaluation.rows import Observer, Row, entry_of
from d4k.store import Store, Writer

__all__ = ["COUNT", "PIXELS", "Task", "check_rows", "decoded", "flaw_of", "observe", "rows_of"]

PIXELS = 2**26
"""Pixels that are shown to a metric at once, where more than one picture is: four of 4096x4096."""

COUNT = 64
"""Pictures that are shown to a metric at once."""


@frozen(eq=False)
class Task:
    """A picture that some metrics have not seen.

    Args:
        look: at the picture.
        prompt: of it.
        reference: of it.
        wanted: key of each row that is to be made, and who observes it.
    """

    look: Look
    prompt: str | None = None
    reference: Look | None = None
    wanted: dict[str, Observer] = field(factory=dict)

    @property
    def compared(self) -> bool:
        """Whether the reference is needed."""
        return self.reference is not None and any("reference" in one.inputs for one in self.wanted.values())

    @property
    def pixels(self) -> int:
        """That are held while it is observed."""
        return self.look.pixels + (self.reference.pixels if self.compared and self.reference else 0)


@frozen(eq=False)
class Shown:
    """A decoded picture, and that of its reference; or what is wrong with them."""

    task: Task
    image: Tensor | Flaw
    reference: Tensor | Flaw | None = None


def observe(
    tasks: Sequence[Task],
    store: Store,
    load: Callable[[Observer], None],
    *,
    workers: int,
    quiet: bool = False,
) -> None:
    """Make the rows that are missing, and keep them; a kill loses the batch in flight.

    Args:
        tasks: what is missing.
        store: where rows are kept.
        load: called before an observer first observes.
        workers: threads that decode.
        quiet: show no bar.

    Raises:
        DataError: a file was changed meanwhile.
        OutputError: the disk is full, or the folder cannot be written.
    """
    with tqdm(total=len(tasks), desc="measuring", unit="picture", disable=quiet or not tasks) as bar:
        for batch in _batches(decoded(tasks, workers)):
            with_rows = _Batch(store)
            for observer in dict.fromkeys(one for shown in batch for one in shown.task.wanted.values()):
                load(observer)
                with_rows.observe(observer, batch)
            with_rows.keep()
            bar.update(len(batch))
            batch.clear()  # before the next is put together


class _Batch:
    """The rows of a batch, by group, until they are kept."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rows: list[tuple[Observer, str, Row]] = []

    def observe(self, observer: Observer, batch: Iterable[Shown]) -> None:
        """Make the rows of one observer."""
        fit: list[tuple[str, Shown]] = []
        for shown in batch:
            for key in (key for key, one in shown.task.wanted.items() if one is observer):
                flaw = flaw_of(observer, shown)
                if flaw is None:
                    fit.append((key, shown))
                else:
                    self.rows.append((observer, key, flaw))
        if fit:
            found = rows_of(observer, [shown for _, shown in fit])
            self.rows += [(observer, key, row) for (key, _), row in zip(fit, found, strict=True)]

    def keep(self) -> None:
        """Write the rows of all observers, a shard for each group."""
        writers: dict[Any, Writer] = {}
        for observer, key, row in self.rows:
            group = observer.group(row.dtype if isinstance(row, Tensor) else torch.float32)
            writers.setdefault(group, self.store.writer(group)).add(key, entry_of(row))
        for writer in writers.values():
            writer.flush()


def rows_of(observer: Observer, batch: Sequence[Shown]) -> list[Row]:
    """The row of each picture; where one of several cannot be measured, each is observed by itself."""
    inputs: dict[str, list[Any]] = {
        "image": [shown.image for shown in batch],
        "file": [shown.task.look.file for shown in batch],
        "prompt": [shown.task.prompt for shown in batch],
        "reference": [shown.reference for shown in batch],
    }
    try:
        with torch.no_grad():
            found = observer.metric.observe(**{need: inputs[need] for need in observer.inputs})
    except DataError as error:
        if len(batch) > 1:
            return [row for shown in batch for row in rows_of(observer, [shown])]
        return [Flaw("unmeasurable", f"{str(error).rstrip('.')}.")]
    return check_rows(observer, found, len(batch))


def check_rows(observer: Observer, found: Any, count: int) -> list[Row]:
    """What `observe` returned as one (K, D) tensor a picture.

    Raises:
        D4KError: it breaks the contract of `d4k.Metric`.
    """
    whole = isinstance(found, Tensor)
    rows = list(found) if isinstance(found, Tensor | Sequence) else []
    good = all(isinstance(row, Tensor) and row.is_floating_point() and row.ndim == (1 if whole else 2) for row in rows)
    if len(rows) != count or not good:
        got = tuple(found.shape) if isinstance(found, Tensor) else [getattr(row, "shape", type(row)) for row in rows]
        raise D4KError(
            f"{observer.name}: observe must return floating-point rows (B, D), or B tensors (K, D), of {count} "
            f"pictures, got {got}; d4k.testing.check_metric shows what is wrong"
        )
    tensors = [(row[None] if whole else row).detach().cpu() for row in rows]
    strange = Flaw("unmeasurable", "What was observed is not finite.")
    return [row if row.isfinite().all() else strange for row in tensors]


def decoded(tasks: Iterable[Task], workers: int) -> Iterator[Shown]:
    """The pictures of tasks in their order, decoded by threads as far ahead as a batch of pixels."""
    waiting: deque[tuple[int, Future[Shown]]] = deque()
    held = 0
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for task in tasks:
                while waiting and (held + task.pixels > PIXELS or len(waiting) >= COUNT):
                    pixels, future = waiting.popleft()
                    held -= pixels
                    yield future.result()
                waiting.append((task.pixels, pool.submit(_show, task)))
                held += task.pixels
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            for _, future in waiting:
                future.cancel()


def _batches(pictures: Iterable[Shown]) -> Iterator[list[Shown]]:
    batch: list[Shown] = []
    pixels = 0
    for shown in pictures:
        if batch and (pixels + shown.task.pixels > PIXELS or len(batch) >= COUNT):
            yield batch
            batch, pixels = [], 0
        batch.append(shown)
        pixels += shown.task.pixels
    if batch:
        yield batch


def _show(task: Task) -> Shown:
    reference: Tensor | Flaw | None = None
    try:
        if task.compared and task.reference is not None:
            reference = task.reference.flaw or decode(task.reference)
    except FlawError as error:
        reference = error.flaw
    try:
        return Shown(task, decode(task.look), reference)
    except FlawError as error:
        return Shown(task, error.flaw)


def flaw_of(observer: Observer, shown: Shown) -> Flaw | None:
    """Why an observer cannot be shown a picture."""
    if isinstance(shown.image, Flaw):
        return shown.image
    if "prompt" in observer.inputs and shown.task.prompt is None:
        return Flaw("unmeasurable", "It has no prompt.")
    if "reference" not in observer.inputs or isinstance(shown.reference, Tensor):
        return None
    why = shown.reference.reason if isinstance(shown.reference, Flaw) else "There is none."
    return Flaw("unmeasurable", f"Its reference cannot be used: {why}")
