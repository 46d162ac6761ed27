"""Digits and escapes of tables."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d4k.evaluation.cells import decimals, escape_markdown, figure, figures, one_line, p_value


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (0.84631, (0.8119, 0.8794), "0.846 [0.812, 0.879]"),
        (151.42, (146.2, 156.8), "151.4 [146.2, 156.8]"),
        (15142.0, (14000.0, 16000.0), "15142 [14000, 16000]"),
        (0.5, (0.5, 0.5), "0.5000 [0.5000, 0.5000]"),
        (-0.00001, (-0.5, 0.5), "0.00 [-0.50, 0.50]"),
        (math.nan, None, "undefined"),
        (math.inf, (1.0, math.inf), "∞ [1.0000, ∞]"),
        (2.5e12, None, "2.500e+12"),
        (3e-14, None, "3.000e-14"),
    ],
)
def test_half_the_interval_is_shown_in_two_digits(
    value: float, interval: tuple[float, float] | None, shown: str
) -> None:
    """More would pretend; a number that is none has a word."""
    assert figure(value, interval) == shown


def test_a_column_has_the_digits_of_its_narrowest_interval() -> None:
    """And a dash where there is no value."""
    assert figures([1.23456, 2.0, None], [(1.2, 1.3), (1.0, 3.0), None]) == [
        "1.235 [1.200, 1.300]",
        "2.000 [1.000, 3.000]",
        "-",
    ]


@given(st.lists(st.integers(-(10**6), 10**6).map(lambda n: n / 10**5), min_size=2, unique=True), st.floats(0.01, 5))
def test_values_that_differ_never_look_alike(values: list[float], half: float) -> None:
    """However wide their intervals are."""
    shown = figures(values, [(value - half, value + half) for value in values])
    assert len({each.split()[0] for each in shown}) == len(values)


def test_noise_of_the_computation_is_not_told_apart() -> None:
    """Ten decimals for the last bit would only mislead."""
    assert decimals([0.1 + 0.2, 0.3], [(0.2, 0.4)]) == 2


def test_names_stay_on_their_line_and_steer_nothing() -> None:
    """They are anybody's text."""
    assert one_line("a\r\n\tb\u2028c\x1b[31m") == "a b c [31m"
    assert escape_markdown("a|b\n_c_ & <d> `e` [f](g) 5%") == r"a\|b \_c\_ \& \<d\> \`e\` \[f\](g) 5%"
    assert p_value(0.0001) == "0.0001"
