"""When the next request may go out: limits a minute, and pauses that a server asks for. All threads share one pace."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from attrs import define, field

__all__ = ["MINUTE", "Clock", "Pace", "back_off", "retry_after"]

MINUTE = 60.0
LONGEST = 300.0
"""Seconds that a pause lasts at most, whatever a server asks for."""


@define
class Clock:
    """The time, and waiting.

    Args:
        now: seconds on a clock that never goes back.
        sleep: waits for so many seconds.
        date: seconds since 1970, as dates in headers count.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    date: Callable[[], float] = time.time


@define
class Pace:
    """Holds requests back.

    Args:
        requests: a minute at most; None is without limit.
        tokens: read and written in a minute at most. What a request will take is not known before its answer: those
            of the last minute count.
        clock: to wait by.
    """

    requests: int | None = None
    tokens: int | None = None
    clock: Clock = field(factory=Clock)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)
    _sent: deque[float] = field(factory=deque, init=False)
    _taken: deque[tuple[float, int]] = field(factory=deque, init=False)
    _closed_until: float = field(default=0.0, init=False)

    def wait(self) -> None:
        """Come back when a request may go out, and count it."""
        while True:
            with self._lock:
                seconds = self._left()
                if seconds <= 0:
                    self._sent.append(self.clock.now())
                    return
            self.clock.sleep(seconds)

    def pause(self, seconds: float) -> None:
        """Let no request out for so long, of any thread."""
        with self._lock:
            self._closed_until = max(self._closed_until, self.clock.now() + min(seconds, LONGEST))

    def took(self, tokens: int) -> None:
        """Count what a request took."""
        with self._lock:
            self._taken.append((self.clock.now(), tokens))

    def _left(self) -> float:
        """Seconds until the next request may go out."""
        now = self.clock.now()
        while self._sent and self._sent[0] <= now - MINUTE:
            self._sent.popleft()
        while self._taken and self._taken[0][0] <= now - MINUTE:
            self._taken.popleft()
        left = self._closed_until - now
        if self.requests is not None and len(self._sent) >= self.requests:
            left = max(left, self._sent[-self.requests] + MINUTE - now)
        if self.tokens is not None and (over := self._over()) is not None:
            left = max(left, over + MINUTE - now)
        return left

    def _over(self) -> float | None:
        """When the tokens were taken that must be a minute old before others may be; None where there is room."""
        assert self.tokens is not None
        rest = sum(count for _, count in self._taken) - self.tokens
        if rest < 0:
            return None
        for moment, count in self._taken:
            rest -= count
            if rest < 0:
                return moment
        return None


def back_off(attempt: int, first: float) -> float:
    """Seconds to wait before the next attempt: twice as long each time, and by chance up to half as long again.

    Args:
        attempt: number of the one that failed, from 0.
        first: seconds after the first.
    """
    apart = random.uniform(1.0, 1.5)  # so that threads do not come back together
    return min(first * 2.0 ** min(attempt, 20), LONGEST) * apart


def retry_after(header: str | None, date: float) -> float | None:
    """Seconds that a `Retry-After` asks for, as a number or as a date; None where there is none.

    Args:
        header: of the response.
        date: of now, in seconds since 1970.

    >>> retry_after("1.5", 0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 10.0), retry_after("soon", 0)
    (1.5, 50.0, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - date
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST) if seconds == seconds else None
