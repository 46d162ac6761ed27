"""Asking about several pictures at once, and stopping well: what was asked for is waited for, since it is paid for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue

from attrs import define, field

from d4k.datasets.captions.interrupts import Interrupt
from d4k.datasets.captions.pictures import Row
from d4k.errors import DataError
from d4k.values import Caption

__all__ = ["IN_A_ROW", "Asking", "Job"]

IN_A_ROW = 10
"""Pictures in a row that may fail at the captioner; after that it is taken to be out of order."""

Answer = Caption | DataError
Outcome = Caption | BaseException


@define(eq=False)
class Job:
    """A picture that is asked about.

    Args:
        row: of the dataset.
        sha256: of its file.
        reached: whether the captioner was called: what fails before is the picture's fault.
    """

    row: Row
    sha256: str
    reached: bool = field(default=False, init=False)


class Asking:
    """Calls a function in threads of its own, as many at once as are allowed, and gives the answers as they come.

    Args:
        ask: gives the answer; a DataError is one, too, and any other error ends the asking.
        count: calls at once; with 1 they are made here, in this thread.
        allows: whether another call may begin while so many are under way.
        interrupt: whether the asking is to end.

    Attributes:
        stopped: whether `allows` ended it.
    """

    def __init__(
        self, ask: Callable[[Job], Caption], count: int, allows: Callable[[int], bool], interrupt: Interrupt
    ) -> None:
        self.ask, self.count, self.allows = ask, count, allows
        self.stopped = False
        self.interrupt = interrupt
        self._under_way, self._in_a_row = 0, 0
        self._came: SimpleQueue[tuple[Job, Outcome]] = SimpleQueue()

    def answers(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Answer]]:
        """Ask, and give each answer with its job, in the order in which they come.

        An error that ends the asking is raised once all answers that are under way have come and were given.

        Raises:
            KeyboardInterrupt: it was interrupted; likewise.
            DataError: `IN_A_ROW` calls in a row failed.
        """
        waiting = iter(jobs)
        fault: BaseException | None = None
        while True:
            if fault is None and self.interrupt.wanted:
                fault = KeyboardInterrupt()
            if fault is None:
                self._begin(waiting)
            if not self._under_way:
                break
            job, outcome = self._came.get()
            self._under_way -= 1
            if isinstance(outcome, Caption | DataError):
                fault = fault or self._counted(job, outcome)
                yield job, outcome
            else:
                fault = fault or outcome
        if fault is not None:
            raise fault

    def _begin(self, jobs: Iterator[Job]) -> None:
        """Begin as many calls as may be under way."""
        while self._under_way < self.count and not self.interrupt.wanted:
            if not self.allows(self._under_way):
                # an answer that is under way may turn out to be cheap
                self.stopped = self.stopped or (not self._under_way and next(jobs, None) is not None)
                return
            job = next(jobs, None)
            if job is None:
                return
            self._under_way += 1
            if self.count == 1:
                self._call(job)
            else:  # a daemon, so that a second Ctrl-C need not wait for a server that does not answer
                threading.Thread(target=self._call, args=(job,), daemon=True).start()

    def _call(self, job: Job) -> None:
        try:
            outcome: Outcome = self.ask(job)
        except KeyboardInterrupt as error:
            outcome = error
        except Exception as error:
            outcome = error
        self._came.put((job, outcome))

    def _counted(self, job: Job, answer: Answer) -> DataError | None:
        """Count the failures of the captioner in a row; the error that ends the asking after too many."""
        if isinstance(answer, Caption):
            self._in_a_row = 0
        elif job.reached:
            self._in_a_row += 1
        if self._in_a_row < IN_A_ROW:
            return None
        return DataError(
            f"{IN_A_ROW} pictures in a row could not be captioned, the last since {answer}. "
            "What was captioned is kept; run again to go on"
        )
