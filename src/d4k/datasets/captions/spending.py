"""What answers cost, and whether another one may be asked for within a budget."""

from __future__ import annotations

import warnings

from d4k.errors import ConfigError
from d4k.protocols import Captioner

__all__ = ["Spending", "check_budget"]


class Spending:
    """Dollars that were spent, and a budget that they stay within.

    What an answer will cost is not known before it is there. It is taken to cost as much as the dearest one so far;
    until there is one, pictures are asked about one at a time. So the budget is exceeded only where an answer is dearer
    than every earlier one, and by no more than the difference.

    Args:
        budget: dollars; None is without end.
        spent: before.
        dearest: what one answer costs at most; None where it is not known yet.
    """

    def __init__(self, budget: float | None, spent: float = 0.0, dearest: float | None = None) -> None:
        self.budget, self.spent, self.dearest = budget, spent, dearest

    def add(self, cost: float | None) -> None:
        """Count an answer."""
        if cost is not None:
            self.spent += cost
            self.dearest = max(cost, self.dearest or 0.0)

    def allows(self, under_way: int) -> bool:
        """Whether another answer may be asked for while so many are under way.

        >>> spending = Spending(1.0)
        >>> spending.allows(0), spending.allows(1)
        (True, False)
        >>> spending.add(0.4)
        >>> spending.allows(0), spending.allows(1)
        (True, False)
        """
        if self.budget is None:
            return True
        if self.dearest is None:
            return under_way == 0 and self.spent < self.budget
        expected = self.spent + (under_way + 1) * self.dearest
        return expected <= self.budget * (1 + 1e-9) and (self.spent < self.budget or self.dearest == 0)

    @property
    def exhausted(self) -> bool:
        """Whether no other answer may be asked for, even after those under way have come."""
        return not self.allows(0)


def check_budget(captioner: Captioner, name: str, budget: float | None) -> None:
    """Refuse a budget for answers whose cost is not known, and warn of one for answers that cost nothing.

    Raises:
        ConfigError: the captioner does not know its prices.
    """
    if budget is None:
        return
    if not hasattr(captioner, "prices"):
        warnings.warn(f"captioner '{name}' costs nothing, so that the budget counts for nothing", stacklevel=3)
    elif captioner.prices is None:
        raise ConfigError(
            f"a budget of {budget:g} dollars cannot be kept, since captioner '{name}' does not know its prices; give "
            "dollars for a million tokens, such as --set price_in=2.50 --set price_out=10.00, or leave the budget out"
        )
