"""Tests of whether paired differences are more than chance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["holm", "signed_rank_test"]

Floats: TypeAlias = npt.NDArray[np.float64]


def signed_rank_test(differences: Floats) -> float | None:
    """The two-sided p of Wilcoxon's signed-rank test, as SciPy computes it.

    Differences of 0 are left out before they are ranked, as Wilcoxon did (`zero_method="wilcox"`). The distribution is
    exact for up to 50 differences that are all distinct and none 0, and normal with a correction for ties otherwise.

    Args:
        differences: one a pair, (N,) float64.

    Returns:
        p in [0, 1]: 1 where all differences are 0; None where there are fewer than two, or one is not finite.

    Source: Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1(6), 1945.

    >>> signed_rank_test(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    0.03125
    """
    from scipy.stats import wilcoxon

    if len(differences) < 2 or not np.isfinite(differences).all():
        return None
    if not differences.any():
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the approximation is rough for few pairs: tables say how many there are
        return float(wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p for as many tests, after Holm: the least times their number, the next times one less, and so on.

    An adjusted p is never below that of a test with a smaller p, and at most 1.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2),
    1979.


    >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
