"""A chat endpoint on loopback that does what a test tells it, and a clock that only sleeping moves."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from io import BytesIO

import pytest
from chat_cases import KEY, Endpoint, Watch, handler
from PIL import Image


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A running server; the key is in the environment variable LOOPBACK_KEY."""
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    told = Endpoint()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(told)) as server:
        told.address = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield told
        server.shutdown()
        thread.join()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def square() -> Image.Image:
    """A picture with a square in it."""
    picture = Image.new("RGB", (200, 100), "navy")
    picture.paste("red", (20, 20, 80, 80))
    return picture


@pytest.fixture
def pictures_sent(endpoint: Endpoint) -> Callable[[], list[Image.Image]]:
    """The pictures in the requests that came."""

    def decode() -> list[Image.Image]:
        found = []
        for request in endpoint.requests:
            uri = request["messages"][0]["content"][1]["image_url"]["url"]
            found.append(Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))))
        return found

    return decode
