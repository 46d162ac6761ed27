"""Requests to an endpoint: JSON out, JSON in, tried again where that may help, and the key never in what is said.

Redirects are not followed: the key would go to wherever a server points. Of the answer of a server nothing is believed
before it was looked at: not its length, not that it is JSON.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from attrs import define, field

from d4k import ConfigError, DataError
from d4k_caption.pace import Pace, back_off, retry_after

__all__ = ["LOOPBACK", "Client", "ServerError"]

T = TypeVar("T")

LARGEST = 4 * 2**20
"""Bytes of an answer that are read; a caption has some hundred."""

AGAIN = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same request may succeed."""

USELESS = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "access_terminated"})
"""Codes of OpenAI that come with status 429, and do not pass."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SHOWN = 300


class ServerError(DataError):
    """A server refuses one request, and may take another.

    Attributes:
        status: of HTTP; 0 where there was no answer.
        code: the server's own word for it.
    """

    def __init__(self, message: str, status: int, code: str) -> None:
        self.status, self.code = status, code
        super().__init__(message)


class _Stay(HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None, so that the redirect is an error."""


@define
class Client:
    """Sends requests to one endpoint; may be used from several threads.

    Args:
        url: that requests are posted to.
        key: sent as bearer token; empty sends none.
        timeout: seconds without a byte from the server after which an attempt has failed.
        attempts: at most, for one request.
        first: seconds to wait after the first failed attempt.
        pace: that all requests keep.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    attempts: int = 6
    first: float = 1.0
    pace: Pace = field(factory=Pace, repr=False)
    _opener: OpenerDirector = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        proxies = [ProxyHandler({})] if urlsplit(self.url).hostname in LOOPBACK else []
        self._opener = build_opener(_Stay, *proxies)

    def post(self, body: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        """Send a JSON object, and read the one that is answered.

        Args:
            body: to send.
            read: makes something of the answer; a ValueError says that the answer is not what it should be, and it is
                asked for again.

        Raises:
            ServerError: the server refuses this request.
            DataError: no attempt succeeded.
            ConfigError: the server refuses any request, for example for the key.
        """
        fault = ""
        for attempt in range(self.attempts):
            self.pace.wait()
            try:
                return self._read(self._attempt(body), read)
            except _AgainError as error:
                fault = str(error)
                wanted = back_off(attempt, self.first) if error.seconds is None else error.seconds
                if attempt + 1 == self.attempts:
                    break
                if error.everybody:
                    self.pace.pause(wanted)
                else:
                    self.pace.clock.sleep(wanted)
        raise DataError(f"{self._place()} gave no answer in {self.attempts} attempts: {fault}")

    def redacted(self, words: str) -> str:
        """Words of a server without the key, which it may repeat."""
        return words.replace(self.key, "[key]") if self.key else words

    def _read(self, answer: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
        try:
            return read(answer)
        except ValueError as error:
            raise _AgainError(self._clean(f"the answer cannot be used: {error}")) from None

    def _attempt(self, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "d4k"}
        request = Request(self.url, json.dumps(body).encode(), headers, method="POST")
        if self.key:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return self._parsed(response.read(LARGEST + 1))
        except HTTPError as error:
            with error:
                raise self._refused(error) from None
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise ConfigError(f"{self._place()} has no valid certificate: {error.reason.verify_message}") from None
            raise _AgainError(self._clean(f"it cannot be reached: {error.reason}")) from None
        except (OSError, http.client.HTTPException) as error:
            raise _AgainError(self._clean(f"the connection broke: {error or type(error).__name__}")) from None

    def _parsed(self, content: bytes) -> dict[str, Any]:
        if len(content) > LARGEST:
            raise _AgainError(f"the answer has more than {LARGEST:,} bytes")
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            raise _AgainError(
                f"the answer is no JSON: {self._clean(content[:80].decode('utf-8', 'replace'))!r}"
            ) from None
        if not isinstance(value, dict):
            raise _AgainError(f"the answer is a {type(value).__name__}, not a JSON object")
        return value

    def _refused(self, error: HTTPError) -> Exception:
        """What a status that is no success means."""
        words, code = self._said(error)
        said = f"{self._place()} answered {error.code}{f': {words}' if words else ''}"
        if 300 <= error.code < 400:
            target = self._clean(str(error.headers.get("Location", "elsewhere")))
            return ConfigError(
                f"{self._place()} redirects to {target}; d4k does not follow, since the key would go there, too. "
                "Give the endpoint that you trust"
            )
        if error.code in (401, 403, 404, 405) or code in USELESS:
            return ConfigError(f"{said}. Check endpoint, model, key and account")
        if error.code in AGAIN or error.code >= 500:
            seconds = retry_after(error.headers.get("Retry-After"), self.pace.clock.date())
            return _AgainError(said, seconds, everybody=error.code == 429 or seconds is not None)
        return ServerError(said, error.code, code)

    def _said(self, error: HTTPError) -> tuple[str, str]:
        """A server's words for an error, and its code."""
        try:
            content = error.read(LARGEST)
        except (OSError, http.client.HTTPException):
            return "", ""
        try:
            value = json.loads(content)
            value = value.get("error", value) if isinstance(value, dict) else value
        except (ValueError, RecursionError):
            value = content.decode("utf-8", "replace")
        if isinstance(value, dict):
            code = value.get("code") or value.get("type") or ""
            return self._clean(str(value.get("message") or value.get("detail") or "")), str(code)
        return self._clean(str(value)), ""

    def _place(self) -> str:
        return f"the endpoint {urlsplit(self.url).netloc}"

    def _clean(self, words: str) -> str:
        """Words of a server, on one line, not too long, and without the key that it may repeat."""
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
        return self.redacted(line)[:SHOWN]


class _AgainError(Exception):
    """An attempt failed, and another may succeed.

    Args:
        words: why.
        seconds: to wait, where the server says it.
        everybody: whether requests of other threads are to wait, too.
    """

    def __init__(self, words: str, seconds: float | None = None, *, everybody: bool = False) -> None:
        self.seconds, self.everybody = seconds, everybody
        super().__init__(words)
