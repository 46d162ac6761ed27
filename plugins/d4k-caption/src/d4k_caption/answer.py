"""What a chat endpoint answered, read without trusting any of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

__all__ = ["Answer", "read_answer"]

MOST_TOKENS = 10**9
"""More than any answer has: a larger count is not believed."""


@frozen
class Answer:
    """An answer.

    Args:
        text: that was written; empty where there is none.
        refused: whether the model, or a filter before or behind it, would not describe the picture.
        reason: why there is no text.
        model: by its own name.
        tokens: read and written; None where the server does not say it, or says something that cannot be.
    """

    text: str
    refused: bool
    reason: str
    model: str
    tokens: tuple[int, int] | None


def read_answer(data: Mapping[str, Any]) -> Answer:
    """The first choice of an answer.

    Args:
        data: JSON of a chat completion.

    Raises:
        ValueError: there is no choice with a message in it.
    """
    if "error" in data and "choices" not in data:
        raise ValueError(f"it holds an error: {_words(data['error'])}")
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ValueError("it has no choices with a message")
    assert isinstance(choice, dict)
    model = data.get("model")
    text, reason, refused = _text(message.get("content")), "", False
    if refusal := _text(message.get("refusal")):
        text, reason, refused = "", refusal, True
    elif choice.get("finish_reason") == "content_filter":
        text, reason, refused = "", "a content filter stopped the answer", True
    elif choice.get("finish_reason") == "length":
        text, reason = "", f"the answer was cut off at max_tokens: {text[-80:]!r}"
    elif not text.strip():
        reason = "the answer was empty"
    return Answer(text, refused, reason, model if isinstance(model, str) else "", _tokens(data.get("usage")))


def _text(content: Any) -> str:
    """The text of a message, whole or in parts.

    Raises:
        ValueError: it is something else.
    """
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    raise ValueError(f"the message holds a {type(content).__name__}, not text")


def _tokens(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    known = [count for count in counts if type(count) is int and 0 <= count <= MOST_TOKENS]
    return (known[0], known[1]) if len(known) == 2 else None


def _words(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)
