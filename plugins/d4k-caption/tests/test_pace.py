"""Requests go out as slowly as the limits and the server want, by a clock that only sleeping moves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from chat_cases import Endpoint, Reply, Watch, chat

from d4k import DataError
from d4k_caption.http import Client
from d4k_caption.pace import Pace, back_off, retry_after


def test_no_minute_holds_more_requests_than_the_limit(watch: Watch) -> None:
    pace = Pace(requests=5, clock=watch.clock)
    moments = []
    for _ in range(23):
        pace.wait()
        moments.append(watch.time)
        watch.time += 0.5
    for moment in moments:
        assert sum(moment <= other < moment + 60 for other in moments) <= 5
    assert moments[-1] - moments[0] == pytest.approx(4 * 60 + 2 * 0.5)


def test_no_request_goes_out_while_the_last_minute_holds_as_many_tokens_as_the_limit(watch: Watch) -> None:
    pace = Pace(tokens=1000, clock=watch.clock)
    moments = []
    for _ in range(9):
        pace.wait()
        moments.append(watch.time)
        pace.took(400)
    for number, moment in enumerate(moments):
        assert sum(moment - 60 < other for other in moments[:number]) * 400 < 1000
    assert moments[-1] - moments[0] == pytest.approx(120)


def test_a_request_of_more_tokens_than_the_limit_holds_the_next_back_a_minute(watch: Watch) -> None:
    pace = Pace(tokens=10, clock=watch.clock)
    pace.wait()
    pace.took(5000)
    pace.wait()
    assert watch.time == pytest.approx(1060)


def test_without_limits_nobody_waits(watch: Watch) -> None:
    pace = Pace(clock=watch.clock)
    for _ in range(100):
        pace.wait()
    assert watch.slept == []


def client(endpoint: Endpoint, watch: Watch, **options: Any) -> Client:
    return Client(f"{endpoint.address}/chat/completions", first=2.0, pace=Pace(clock=watch.clock), **options)


def said(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def test_after_a_failure_the_wait_doubles(endpoint: Endpoint, watch: Watch) -> None:
    """And is up to half as long again by chance, so that threads do not come back together."""
    endpoint.usual = lambda: Reply(b"", 500)
    with pytest.raises(DataError, match="gave no answer in 5 attempts"):
        client(endpoint, watch, attempts=5).post({}, said)
    for waited, least in zip(watch.slept, (2, 4, 8, 16), strict=True):
        assert least <= waited <= 1.5 * least


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("0.25", 0.25), ("Thu, 01 Jan 1970 00:17:10 GMT", 30.0), ("99999", 300.0)],
)
def test_a_server_that_says_how_long_to_wait_is_heard_by_every_thread(
    endpoint: Endpoint, watch: Watch, header: str, seconds: float
) -> None:
    """As seconds or as a date, five minutes at most."""
    endpoint.replies = [Reply(b"", 429, {"Retry-After": header})]
    asked = client(endpoint, watch)
    assert asked.post({}, said) == "a red square"
    assert sum(watch.slept) == pytest.approx(seconds)
    asked.pace.pause(seconds)
    before = watch.time
    asked.pace.wait()
    assert watch.time - before == pytest.approx(seconds)


@pytest.mark.parametrize("header", ["soon", "", "nan", "Thu, 99 Jan"])
def test_a_wait_that_cannot_be_read_is_none(header: str) -> None:
    assert retry_after(header, 0.0) is None


@pytest.mark.parametrize("header", ["-5", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_wait_in_the_past_is_over(header: str) -> None:
    assert retry_after(header, 100.0) == 0.0


def test_the_wait_never_exceeds_five_minutes_but_for_chance() -> None:
    waits = [back_off(attempt, 1.0) for attempt in range(2000)]
    assert max(waits) <= 450
    assert all(later >= earlier / 1.5 for earlier, later in pairwise(waits[:9]))


def test_a_key_is_in_no_error_and_no_representation(endpoint: Endpoint, watch: Watch) -> None:
    key = "sk-secret-123"
    endpoint.usual = lambda: Reply(f"bad key {key}".encode(), 500)
    asked = client(endpoint, watch, key=key, attempts=1)
    with pytest.raises(DataError, match=r"bad key \[key\]") as caught:
        asked.post({}, said)
    assert key not in f"{caught.value!r} {asked!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_an_answer_of_the_wrong_form_is_asked_for_again(endpoint: Endpoint, watch: Watch) -> None:
    """What reads it says so with a ValueError."""
    endpoint.replies = [Reply(chat("no"))]
    read: Callable[[dict[str, Any]], float] = lambda answer: float(said(answer))  # noqa: E731
    endpoint.usual = lambda: Reply(chat("3.5"))
    assert client(endpoint, watch).post({}, read) == 3.5
