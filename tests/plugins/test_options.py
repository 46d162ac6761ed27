"""An option of the wrong type is named, with what is allowed, whichever way its field checks it."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from attrs import define, field
from attrs.validators import ge, in_, instance_of, optional

from d4k.errors import ConfigError
from d4k.plugins import Entry, build


@define
class Part:
    """One option of each kind."""

    plain: float = 1.0
    word: Literal["a", "b"] = "a"
    flag: bool = False
    maybe: int | None = None
    any_kind: list[int] = field(factory=list)
    least: int = field(default=1, validator=ge(1))
    whole: int = field(default=1, validator=instance_of(int))
    chosen: str = field(default="x", validator=in_(("x", "y")))
    turned: float = field(default=1.0, converter=float)
    both: int | None = field(default=None, validator=optional([instance_of(int), ge(0)]))
    own: int = field(default=1)

    @own.validator
    def _check(self, attribute: Any, value: Any) -> None:
        if value > 5:
            raise ValueError("too many")


ENTRY = Entry("metric", "part", f"{__name__}:Part", "", "d4k-part", "1")


def made(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setattr(Entry, "load", lambda self: Part)
    return build(ENTRY, options)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("plain", "big", "option 'plain' must be float, got 'big'"),
        ("plain", True, "option 'plain' must be float, got True"),
        ("word", "c", "option 'word' must be Literal['a', 'b'], got 'c'"),
        ("flag", "yes", "option 'flag' must be bool, got 'yes'"),
        ("flag", 1, "option 'flag' must be bool, got 1"),
        ("maybe", "1", "option 'maybe' must be int or none, got '1'"),
        ("least", "1", "option 'least' must be int, got '1' ('<' not supported|option 'least' must be int, got '1' ("),
        ("least", 0, "'least' must be >= 1: 0"),
        ("whole", 1.5, "'whole' must be int (got 1.5 that is a float)"),
        ("chosen", "z", "'chosen' must be in ('x', 'y') (got 'z')"),
        ("turned", "much", "option 'turned' must be float, got 'much' (could not convert string to float: 'much')"),
        ("both", "2", "'both' must be int (got '2' that is a str)"),
        ("own", 7, "option 'own' must be int, got 7 (too many)"),
        ("own", "7", "option 'own' must be int, got '7' ('>' not supported"),
    ],
)
def test_wrong_option_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, option: str, value: Any, message: str
) -> None:
    """By its annotation where the validator is silent."""
    with pytest.raises(ConfigError) as caught:
        made(monkeypatch, **{option: value})
    assert str(caught.value).startswith("metric 'part': ")
    assert any(part in str(caught.value) for part in message.split("|"))


def test_right_options_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole numbers are floats, and what is not plain is left to the class."""
    part = made(monkeypatch, plain=2, word="b", flag=True, maybe=None, any_kind=(1, 2), least=3, turned="1.5")
    assert (part.plain, part.word, part.flag, part.any_kind, part.turned) == (2, "b", True, (1, 2), 1.5)
