"""What a comparison of systems says: one difference a metric and pair of systems."""

from __future__ import annotations

from attrs import frozen

__all__ = ["Comparison", "Difference"]


@frozen
class Difference:
    """Two systems by one metric, on the pictures that belong together.

    Args:
        metric: name of the score.
        a: name of the system that is compared with.
        b: name of the system that is compared.
        value_a: score of the one on the pairs.
        value_b: score of the other on the pairs.
        difference: `value_b - value_a`.
        interval: of the difference, 95 %, by bootstrap over prompts; None where there is none.
        p_value: of the Wilcoxon signed-rank test; None for a metric of sets, which says nothing of single pictures.
        wins: pairs in which b is better; 0 where neither direction is better, and for metrics of sets.
        losses: pairs in which a is better, likewise.
        ties: pairs in which both are equal, likewise.
        count: pairs that it rests on.
        real: whether the interval excludes 0.
        p_adjusted: p of all differences of the comparison together, after Holm.
        unit: of the scores.
        higher_is_better: direction of the metric; None where neither is better.
    """

    metric: str
    a: str
    b: str
    value_a: float
    value_b: float
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    wins: int
    losses: int
    ties: int
    count: int
    real: bool
    p_adjusted: float | None = None
    unit: str = ""
    higher_is_better: bool | None = None

    @property
    def better(self) -> str | None:
        """The name of the system that is better for sure; None where the difference may be chance."""
        if not self.real or self.higher_is_better is None:
            return None
        return self.b if (self.difference > 0) is self.higher_is_better else self.a


@frozen
class Comparison:
    """What `compare` found.

    Args:
        systems: names, in the order given.
        differences: pair of systems by pair, metric by metric.
        remarks: what a reader must know, a sentence each.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    systems: tuple[str, ...]
    differences: tuple[Difference, ...]
    remarks: tuple[str, ...] = ()
    resamples: int = 1000
    seed: int = 0

    def find(self, metric: str, a: str, b: str) -> Difference | None:
        """The difference of two systems by a metric, in the order in which it was computed; None where it was not."""
        return next((d for d in self.differences if (d.metric, d.a, d.b) == (metric, a, b)), None)
