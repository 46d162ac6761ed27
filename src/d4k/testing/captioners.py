"""The contract of a captioner."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image

from d4k.protocols import Captioner
from d4k.testing.attempt import attempt, check_options
from d4k.values import Caption

__all__ = ["check_captioner"]

INSTRUCTION = "Describe the picture in one sentence."
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
SHORTEST = 8
"""Letters of the shortest value of the environment that is taken for a secret."""


def check_captioner(captioner: Captioner) -> None:
    """Check a captioner.

    Its identity is plain values that JSON can hold, and stays the same. It says something of pictures of any shape,
    and leaves them as they are. An answer without a caption has a reason. With `concurrent` it may be called from two
    threads. No key of the environment is in its identity, its representation or its answers.

    Args:
        captioner: to check. Its `load` is called, and a few small pictures are captioned.

    Raises:
        AssertionError: the contract does not hold.
    """
    check_options(captioner)
    identity = _identity(captioner)
    attempt(f"load of {type(captioner).__name__} on the CPU", lambda: captioner.load(torch.device("cpu")))
    _check_prices(captioner)
    pictures = [_picture(64, 48), _picture(33, 70)]
    answers = [_caption(captioner, picture) for picture in pictures]
    if getattr(captioner, "concurrent", False):
        with ThreadPoolExecutor(2) as threads:
            answers += threads.map(lambda picture: _caption(captioner, picture), pictures)
    assert _identity(captioner) == identity, "the identity of a captioner stays the same while it works"
    _check_secrets(captioner, answers)


def _identity(captioner: Captioner) -> str:
    """The identity as JSON."""
    identity = attempt("the identity of a captioner, before load, too,", lambda: captioner.identity)
    assert isinstance(identity, Mapping), f"identity is a mapping, got a {type(identity).__name__}"
    assert identity, "identity says what decides the captions, and is not empty"
    return attempt(
        "identity as JSON, which is kept with each caption,",
        lambda: json.dumps(dict(identity), sort_keys=True, allow_nan=False),
    )


def _check_prices(captioner: Captioner) -> None:
    prices = getattr(captioner, "prices", None)
    if prices is not None:
        numbers = isinstance(prices, tuple) and len(prices) == 2 and all(price >= 0 for price in prices)
        assert numbers, f"prices are dollars for a million tokens read and written, or None, got {prices!r}"


def _caption(captioner: Captioner, picture: Image.Image) -> Caption:
    before = picture.tobytes()
    size = f"{picture.width}x{picture.height}"
    answer = attempt(f"caption of a picture of {size} pixels", lambda: captioner.caption(picture, INSTRUCTION))
    assert isinstance(answer, Caption), f"caption returns d4k.Caption, got a {type(answer).__name__}"
    assert isinstance(answer.text, str), f"the text of a caption is a string, got {answer.text!r}"
    assert answer.usable or answer.reason, "an answer without a caption, or a refusal, has a reason"
    counts = (answer.tokens_in, answer.tokens_out)
    assert all(isinstance(count, int) and count >= 0 for count in counts), f"tokens are counted, got {counts}"
    assert answer.cost is None or answer.cost >= 0, f"the cost of an answer is at least 0, got {answer.cost}"
    if getattr(captioner, "prices", None) is not None:
        assert answer.cost is not None, "a captioner that knows its prices says what each answer costs"
    assert picture.tobytes() == before, "a captioner leaves the picture as it is"
    return answer


def _check_secrets(captioner: Captioner, answers: list[Caption]) -> None:
    """No key is where it would be printed or kept."""
    said = f"{captioner!r} {dict(captioner.identity)!r} {answers!r}"
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST:
            assert value not in said, f"a captioner shows no key: that of {name} is in what it says of itself"


def _picture(width: int, height: int) -> Image.Image:
    """A slope of colours with a square in it."""
    slope = Image.linear_gradient("L")
    picture = Image.merge("RGB", [slope.rotate(angle).resize((width, height)) for angle in (0, 90, 180)])
    picture.paste((200, 30, 30), (width // 4, height // 4, width // 2, height // 2))
    return picture
