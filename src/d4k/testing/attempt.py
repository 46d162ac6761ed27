"""What all checks share: calls whose errors become sentences, and comparisons of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import attrs
from torch import Tensor

from d4k.errors import first_line

__all__ = ["attempt", "check_options", "differ", "distance", "like", "shape_of"]

T = TypeVar("T")


def attempt(what: str, call: Callable[[], T]) -> T:
    """Call something of the implementation; whatever it raises becomes a sentence.

    Args:
        what: the call and its input, as the sentence names them.
        call: without arguments.

    Raises:
        AssertionError: the call raised something.
    """
    try:
        return call()
    except Exception as error:
        raise AssertionError(f"{what} must work; it raised {type(error).__name__}: {first_line(error)}") from error


def check_options(component: object) -> None:
    """Check that a component is an attrs class, so that its fields are its options."""
    assert attrs.has(type(component)), "a component is an attrs class: its fields are its options"


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference of two tensors, as a part of the largest value of both; 0 where both are zero."""
    a, b = a.detach().double(), b.detach().double()
    scale = max(float(a.abs().max()), float(b.abs().max()))
    return float((a - b).abs().max()) / scale if scale > 0 else 0.0


def like(a: Tensor, b: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether two tensors of one shape are equal but for rounding."""
    return distance(a, b) <= tolerance


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two results of one computation differ by more than what an ignored input leaves, which is nothing.

    The threshold is that low because models of random weights are checked too, whose texts have little effect.
    """
    return distance(a, b) > 1e-7


def shape_of(tensor: object) -> str:
    """The shape of a tensor in words, or the type of what is none.

    >>> shape_of(Tensor(2, 3))
    '(2, 3)'
    >>> shape_of(None)
    'a NoneType'
    """
    return str(tuple(tensor.shape)) if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
