"""A chat endpoint on loopback that does what a test tells it, and a clock that only sleeping moves."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from attrs import define, field

from d4k_caption.pace import Clock

KEY = "sk-loopback-0123456789"


def chat(text: Any = "a red square", *, usage: Any = "usual", **message: Any) -> dict[str, Any]:
    """A chat completion; what is given as `finish_reason` belongs to the choice, the rest to the message."""
    reason = message.pop("finish_reason", "stop")
    counted = {"prompt_tokens": 100, "completion_tokens": 10} if usage == "usual" else usage
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text, **message}}
    return {"model": "loopback-1", "choices": [choice], "usage": counted}


@define
class Reply:
    """What the server does with one request.

    Args:
        body: JSON, or bytes as they are.
        status: of HTTP.
        headers: beside the usual ones.
        cut: sends so many bytes of the body and breaks the connection; None sends all.
    """

    body: Any = field(factory=chat)
    status: int = 200
    headers: dict[str, str] = field(factory=dict)
    cut: int | None = None


@define
class Endpoint:
    """The server: replies in order, and `usual` when they are used up.

    Attributes:
        requests: bodies as they came, with the headers under "headers" and the path under "path".
    """

    address: str = ""
    replies: list[Reply] = field(factory=list)
    usual: Callable[[], Reply] = Reply
    requests: list[dict[str, Any]] = field(factory=list)
    lock: Any = field(factory=threading.Lock)

    def next(self, request: dict[str, Any]) -> Reply:
        with self.lock:
            self.requests.append(request)
            return self.replies.pop(0) if self.replies else self.usual()


def handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            request = {**json.loads(content), "headers": dict(self.headers), "path": self.path}
            reply = endpoint.next(request)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            if reply.cut == 0:
                self._break()
                return
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: reply.cut])
            if reply.cut is not None:
                self.close_connection = True

        do_GET = do_POST

        def _break(self) -> None:
            """End the connection with a reset in place of an answer."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


@define
class Watch:
    """A clock that stands still but for sleeping."""

    time: float = 1000.0
    slept: list[float] = field(factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.time, self.sleep, lambda: self.time)
