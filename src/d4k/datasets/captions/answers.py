"""What a captioner answered, made a caption: white space set right, and refusals in plain words told apart."""

from __future__ import annotations

import re
import unicodedata

from attrs import evolve

from d4k.values import Caption

__all__ = ["is_refusal", "tidied"]

THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
"""What models that think aloud put before their answer."""

QUOTES = {'"': '"', "“": "”", "«": "»", "'": "'"}

MODAL = (
    r"(?:can(?:no|['’])t|can\snot|could(?:\snot|n['’]t)|(?:wo|do)n['’]t|will\snot|do\snot"
    r"|(?:am|['’]m)\s(?:not\sable|unable))"
)
REFUSAL = re.compile(
    rf"""\A(?:
        (?:i\s*(?:am|['’]m)\s+|we\s*(?:are|['’]re)\s+)?(?:very\s+|so\s+)?sorry\b(?=\s*(?:[,.!;:–—]|-\s|but\b|i\b|for\b|that\b|about\b|\Z))
        | (?:my\s+)?apologies\b | i\s+apologi[sz]e\b
        | (?:unfortunately,?\s+|no,\s+)?i\s*{MODAL}\b
        | as\s+an?\s+(?:ai|artificial|language|large\s+language)\b
        | i\s*(?:am|['’]m)\s+(?:just\s+)?an?\s+(?:ai|language\s+model)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""How refusals begin. A description has neither a speaker nor an apology at its start."""

NOTHING = "the answer was empty"
SHOWN = 200


def tidied(caption: Caption) -> Caption:
    r"""A caption as it is kept: on one line, without quotes around it, and refused where its words are a refusal.

    >>> tidied(Caption('"A harbour\n at dusk."')).text
    'A harbour at dusk.'
    >>> tidied(Caption("I'm sorry, but I can't help with that.")).refused
    True
    """
    text = _line(caption.text)
    if not caption.refused and is_refusal(text):
        return evolve(caption, text="", refused=True, reason=_line(caption.reason) or text[:SHOWN])
    if caption.refused:
        return evolve(caption, text="", reason=_line(caption.reason) or text[:SHOWN] or "it was refused")
    return evolve(caption, text=text, reason="" if text else _line(caption.reason) or NOTHING)


def is_refusal(text: str) -> bool:
    """Whether a text begins as the refusal of an assistant does, and not as a description.

    >>> is_refusal("As an AI, I cannot identify people."), is_refusal("A sorry little boat on dry land.")
    (True, False)
    """
    return REFUSAL.match(text) is not None


def _line(text: str) -> str:
    """Text on one line, without control characters and half characters, and without quotes around the whole."""
    whole = THOUGHT.sub("", text).encode("utf-8", "replace").decode("utf-8")
    printable = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in whole)
    line = " ".join(printable.split())
    closing = QUOTES.get(line[:1])
    if closing and len(line) > 1 and line.endswith(closing) and closing not in line[1:-1]:
        line = line[1:-1].strip()
    return line
