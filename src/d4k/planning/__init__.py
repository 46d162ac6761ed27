"""Will it fit? Memory, time and disk before anything is loaded."""

from d4k.planning.fit import Choice, Machine, choose, measure
from d4k.planning.plan import Memory, Part, Plan, plan, shapes
from d4k.planning.trace import Trace, trace

__all__ = ["Choice", "Machine", "Memory", "Part", "Plan", "Trace", "choose", "measure", "plan", "shapes", "trace"]
