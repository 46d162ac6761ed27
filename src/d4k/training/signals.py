"""Being told to stop: a run finishes its step, keeps a checkpoint, and leaves with the code that schedulers expect."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import torch

from d4k.processes import Processes

__all__ = ["InterruptedRun", "Stop", "TerminatedRun"]


class InterruptedRun(KeyboardInterrupt):
    """SIGINT (Ctrl-C) ended a run after its step; a checkpoint is kept.

    Attributes:
        step: optimizer steps done.
        code: what the command line leaves with.
    """

    code = 128 + signal.SIGINT

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"interrupted after step {step}; resume=True goes on from there")


class TerminatedRun(SystemExit):
    """SIGTERM ended a run after its step; a checkpoint is kept.

    Attributes:
        step: optimizer steps done.
        code: what the program leaves with.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(128 + signal.SIGTERM)


class Stop:
    """What SIGINT and SIGTERM have asked of this process; use `listening` around a run, `deferred` around its steps.

    A signal within `deferred` is noted, and the steps ask `agreed` when they can stop; a second SIGINT does not wait.
    Elsewhere a signal ends the block at once, with KeyboardInterrupt or SystemExit, so that what it holds is let go.
    Outside the main thread, which alone may handle signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.waits = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle both signals in this block; the handlers of before are put back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN and handler is not None:  # ignored under nohup, say, or none of Python's
                signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal in this block."""
        self.waits = True
        try:
            yield
        finally:
            self.waits = False

    def agreed(self, processes: Processes, device: torch.device) -> int | None:
        """The signal for which all processes stop now, since one of them was told to; None where none was.

        Args:
            processes: that share the run; each must ask.
            device: where this process computes.
        """
        if processes.count == 1:
            return self.asked
        told = torch.tensor([self.asked == signal.SIGINT, self.asked == signal.SIGTERM], dtype=torch.float32)
        interrupted, terminated = processes.sums(told.to(device)).tolist()
        return signal.SIGTERM if terminated else signal.SIGINT if interrupted else None

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        again = self.asked is not None
        self.asked = self.asked or number
        if self.waits and not (again and number == signal.SIGINT):
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def leave(number: int, step: int) -> NoReturn:
    """End a run for a signal, after a step whose checkpoint is kept.

    Raises:
        InterruptedRun: for SIGINT.
        TerminatedRun: for SIGTERM.
    """
    error: Any = InterruptedRun if number == signal.SIGINT else TerminatedRun
    raise error(step)
