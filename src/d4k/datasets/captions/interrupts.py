"""Ctrl-C that waits for what is under way, so that no answer is lost that was paid for."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from attrs import define

__all__ = ["Interrupt", "patient"]

WORDS = "stopping once the answers under way have come; press Ctrl-C again to stop at once"


@define
class Interrupt:
    """Whether Ctrl-C was pressed."""

    wanted: bool = False


@contextmanager
def patient() -> Iterator[Interrupt]:
    """A block in which the first Ctrl-C is noted alone; the second one is a KeyboardInterrupt, as usual.

    Where another handler is set than Python's own, and in other threads than the main one, nothing is changed.
    """
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield interrupt
        return

    def note(number: int, frame: FrameType | None) -> None:
        if interrupt.wanted:
            signal.default_int_handler(number, frame)
        interrupt.wanted = True
        print(f"\n{WORDS}", file=sys.stderr)

    signal.signal(signal.SIGINT, note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
