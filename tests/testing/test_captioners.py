"""The contract of a captioner passes what keeps it, and names the clause that another breaks."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field, frozen
from PIL import Image

from d4k import Caption, Captioner, create, hookimpl
from d4k.errors import DataError, UnknownNameError
from d4k.testing import check_captioner


@define
class Sizes:
    """Says how large a picture is."""

    style: str = "plain"
    concurrent = True
    prices = (1.0, 2.0)

    @property
    def identity(self) -> dict[str, Any]:
        return {"style": self.style}

    def load(self, device: Any) -> None:
        """Nothing."""

    def caption(self, image: Image.Image, instruction: str) -> Caption:
        return Caption(f"a picture of {image.width} by {image.height}", tokens_in=1, tokens_out=9, cost=0.1)


class Refusing(Sizes):
    def caption(self, image: Image.Image, instruction: str) -> Caption:
        return Caption("", True, "it shows a square", cost=0.0)


@frozen
class Free:
    """Has nothing that it may leave out."""

    identity = {"model": "none"}  # noqa: RUF012

    def load(self, device: Any) -> None:
        """Nothing."""

    def caption(self, image: Image.Image, instruction: str) -> Caption:
        return Caption("a picture")


@pytest.mark.parametrize("captioner", [Sizes(), Refusing(), Free()])
def test_captioners_that_keep_the_contract_pass(captioner: Any) -> None:
    """Concurrent and not, with prices and without, and one that refuses with a reason."""
    check_captioner(captioner)
    assert isinstance(captioner, Captioner)
    assert not isinstance(object(), Captioner)


class NoOptions:
    """No attrs class."""


class Broken(Sizes):
    def caption(self, image: Image.Image, instruction: str) -> Caption:
        raise DataError("out of paint")


class Talking(Sizes):
    def caption(self, image: Image.Image, instruction: str) -> Any:
        return "a picture"


class Silent(Sizes):
    def caption(self, image: Image.Image, instruction: str) -> Caption:
        return Caption("", cost=0.0)


class Costless(Sizes):
    def caption(self, image: Image.Image, instruction: str) -> Caption:
        return Caption("a picture")


class Drawing(Sizes):
    def caption(self, image: Image.Image, instruction: str) -> Caption:
        image.putpixel((0, 0), (1, 2, 3))
        return super().caption(image, instruction)


class Negative(Sizes):
    def caption(self, image: Image.Image, instruction: str) -> Caption:
        return Caption("a picture", tokens_in=-1, cost=0.0)


@define
class Counting(Sizes):
    calls: int = field(default=0, init=False)

    @property
    def identity(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def caption(self, image: Image.Image, instruction: str) -> Caption:
        self.calls += 1
        return super().caption(image, instruction)


class Nobody(Sizes):
    identity: Any = {}  # noqa: RUF012


class Objects(Sizes):
    identity: Any = {"model": object()}  # noqa: RUF012


class Dear(Sizes):
    prices: Any = 5.0


@pytest.mark.parametrize(
    ("captioner", "sentence"),
    [
        (NoOptions(), "attrs class"),
        (Broken(), "caption of a picture of 64x48 pixels must work; it raised DataError: out of paint"),
        (Talking(), "caption returns d4k.Caption, got a str"),
        (Silent(), "has a reason"),
        (Costless(), "says what each answer costs"),
        (Drawing(), "leaves the picture as it is"),
        (Negative(), r"tokens are counted, got \(-1, 0\)"),
        (Counting(), "the identity of a captioner stays the same"),
        (Nobody(), "is not empty"),
        (Objects(), "identity as JSON"),
        (Dear(), "prices are dollars"),
    ],
)
def test_captioners_with_a_fault_fail(captioner: Any, sentence: str) -> None:
    """One clause each."""
    with pytest.raises(AssertionError, match=sentence):
        check_captioner(captioner)


def test_a_captioner_that_shows_a_key_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the variable is said, the key is not."""
    monkeypatch.setenv("SOME_API_KEY", "sk-loopback-123")
    with pytest.raises(AssertionError, match="that of SOME_API_KEY") as caught:
        check_captioner(Sizes("sk-loopback-123"))
    assert "sk-loopback" not in str(caught.value)


def test_captioners_are_a_kind_of_their_own(install: Any) -> None:
    """A plugin registers one, and `create` makes it with its options."""

    class Plugin:
        @staticmethod
        @hookimpl
        def register_captioners(register: Any) -> None:
            register("sizes", f"{__name__}:Sizes", summary="says how large a picture is")

    install(sizes=Plugin)
    with pytest.raises(UnknownNameError, match="unknown captioner 'size'; did you mean 'sizes'"):
        create("captioner", "size")
