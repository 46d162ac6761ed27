"""A captioner behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import base64
import os
import re
import warnings
from collections.abc import Mapping
from io import BytesIO
from typing import Any, ClassVar
from urllib.parse import urlsplit

import torch
from attrs import define, field
from PIL import Image

from d4k import Caption, ConfigError
from d4k.backbones import number, optional, text, whole
from d4k_caption.answer import Answer, read_answer
from d4k_caption.http import LOOPBACK, Client, ServerError
from d4k_caption.pace import Pace
from d4k_caption.prepare import shrunk

__all__ = ["OpenAI"]

HOST, VARIABLE = "api.openai.com", "OPENAI_API_KEY"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY = re.compile(r"[!-~]+")
FILTERED = ("content_policy", "content_filter", "moderation", "responsibleai", "safety")
"""Parts of the codes that say that a picture was refused before a model saw it."""

PIXELS_A_TOKEN = 14 * 14
"""At least; of the input, where a server does not count its tokens."""


def _check_endpoint(owner: Any, attribute: Any, value: Any) -> None:  # noqa: ARG001
    parts = urlsplit(value) if isinstance(value, str) else urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("endpoint must be an address such as https://api.openai.com/v1, without ? and #")
    if parts.username or parts.password:
        raise ConfigError("endpoint must hold no name and no password; name the variable with the key in key_variable")


def _check_variable(owner: Any, attribute: Any, value: Any) -> None:  # noqa: ARG001
    if value is not None and not (isinstance(value, str) and NAME.fullmatch(value)):
        # what was given may be the key itself, and is not repeated
        raise ConfigError(f"key_variable must be the name of an environment variable, such as {VARIABLE}, and no key")


@define(kw_only=True)
class OpenAI:
    """Captions by any endpoint that speaks the chat completions of OpenAI: GPT-4o, vLLM, llama.cpp and others.

    The key is read from an environment variable when the first picture is asked about. It is kept nowhere else, and
    goes to the endpoint alone: redirects are refused.

    Args:
        model: as the endpoint names it, such as "gpt-4o".
        endpoint: address of the API, up to and without /chat/completions.
        key_variable: environment variable that holds the key. None is OPENAI_API_KEY for api.openai.com, and no key
            for another endpoint.
        size: pixels of the longer side at most; larger pictures are reduced before they are sent.
        quality: of the JPEG that is sent.
        max_tokens: that an answer may have; one that is cut off there is no caption.
        temperature: of the sampling; None leaves it to the endpoint.
        price_in: dollars for a million tokens read; with `price_out`, costs are counted.
        price_out: dollars for a million tokens written.
        requests_per_minute: at most; None is without limit.
        tokens_per_minute: at most, likewise.
        timeout: seconds without an answer after which a request has failed.
        attempts: at most, for one picture.
        backoff: seconds to wait after a failed attempt; twice as long after each further one.
    """

    model: str = field(validator=text())
    endpoint: str = field(default=f"https://{HOST}/v1", validator=_check_endpoint)
    key_variable: str | None = field(default=None, validator=_check_variable)
    size: int = field(default=1024, validator=whole(16))
    quality: int = field(default=90, validator=whole(1, 95))
    max_tokens: int = field(default=300, validator=whole(1))
    temperature: float | None = field(default=None, validator=optional(number(0, 2)))
    price_in: float | None = field(default=None, validator=optional(number(0)))
    price_out: float | None = field(default=None, validator=optional(number(0)))
    requests_per_minute: int | None = field(default=None, validator=optional(whole(1)))
    tokens_per_minute: int | None = field(default=None, validator=optional(whole(1)))
    timeout: float = field(default=120.0, validator=number(0, above=True))
    attempts: int = field(default=6, validator=whole(1))
    backoff: float = field(default=1.0, validator=number(0))
    _client: Client | None = field(init=False, default=None, repr=False, eq=False)
    _limit: str = field(init=False, default="max_tokens", repr=False, eq=False)

    concurrent: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        if (self.price_in is None) != (self.price_out is None):
            raise ConfigError("price_in and price_out are given together, or none of them")

    @property
    def identity(self) -> Mapping[str, Any]:
        """Model, host, and how pictures and answers are made; neither the key nor the name of its variable."""
        return {
            "model": self.model,
            "endpoint": urlsplit(self.endpoint).netloc,
            "size": self.size,
            "quality": self.quality,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }

    @property
    def prices(self) -> tuple[float, float] | None:
        """Dollars for a million tokens read and written; None where they were not given."""
        if self.price_in is None or self.price_out is None:
            return None
        return self.price_in, self.price_out

    def load(self, device: torch.device) -> None:  # noqa: ARG002
        """Read the key from the environment; nothing is sent.

        Raises:
            ConfigError: the variable is not set, or holds what cannot be a key.
        """
        pace = Pace(self.requests_per_minute, self.tokens_per_minute)
        url = f"{self.endpoint.rstrip('/')}/chat/completions"
        self._client = Client(url, self._key(), self.timeout, self.attempts, self.backoff, pace)

    def caption(self, image: Image.Image, instruction: str) -> Caption:
        """Ask the endpoint.

        Raises:
            DataError: no attempt succeeded, or the endpoint does not take this picture.
            ConfigError: the endpoint takes no request, for example for the key.
        """
        if self._client is None:
            raise ConfigError("the captioner openai has no key yet: call load(device) before caption")
        small = shrunk(image, self.size)
        try:
            answer = self._asked(self._client, _messages(_data_uri(small, self.quality), instruction))
        except ServerError as error:
            if any(word in error.code.lower() for word in FILTERED):
                return Caption("", True, str(error), model=self.model, cost=None if self.prices is None else 0.0)
            raise
        read, written = answer.tokens or (0, 0)
        self._client.pace.took(read + written)
        cost = self._cost(answer, small, instruction)
        said, reason, model = map(self._client.redacted, (answer.text, answer.reason, answer.model or self.model))
        return Caption(said, answer.refused, reason, read, written, model, cost)

    def _asked(self, client: Client, messages: list[dict[str, Any]]) -> Answer:
        limit = self._limit  # another thread may change it meanwhile
        try:
            return client.post(self._body(messages, limit), read_answer)
        except ServerError as error:
            # newer models of OpenAI take the limit under another name alone
            if limit != "max_tokens" or "max_completion_tokens" not in str(error):
                raise
            self._limit = "max_completion_tokens"
            return client.post(self._body(messages, self._limit), read_answer)

    def _body(self, messages: list[dict[str, Any]], limit: str) -> dict[str, Any]:
        body = {"model": self.model, "messages": messages, limit: self.max_tokens}
        return body if self.temperature is None else {**body, "temperature": self.temperature}

    def _cost(self, answer: Answer, sent: Image.Image, instruction: str) -> float | None:
        """Dollars; where the server counts no tokens, what they are at most by all that is known."""
        if self.prices is None:
            return None
        most = sent.width * sent.height // PIXELS_A_TOKEN + len(instruction)
        read, written = answer.tokens or (most, self.max_tokens)
        return (read * self.prices[0] + written * self.prices[1]) / 1e6

    def _key(self) -> str:
        parts = urlsplit(self.endpoint)
        variable = self.key_variable or (VARIABLE if parts.hostname == HOST else None)
        if variable is None:
            return ""
        key = os.environ.get(variable, "").strip()
        if not key:
            raise ConfigError(
                f"the environment variable {variable}, which holds the key for {parts.netloc}, is not set; "
                f"set it with: export {variable}=..."
            )
        if not KEY.fullmatch(key):
            raise ConfigError(f"the environment variable {variable} holds no key: it has spaces or other odd letters")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            warnings.warn(f"the key goes to {parts.netloc} unencrypted, since the endpoint is http", stacklevel=3)
        return key


def _data_uri(image: Image.Image, quality: int) -> str:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _messages(uri: str, instruction: str) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": instruction}, {"type": "image_url", "image_url": {"url": uri}}]
    return [{"role": "user", "content": content}]
