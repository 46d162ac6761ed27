"""Will it fit? Memory, time and disk before anything is loaded."""

from d4k.planning.fit import Choice, Machine, choose, measure
from d4k.planning.ladder import LADDER, Rung, ladder
from d4k.planning.plan import plan
from d4k.planning.shapes import shapes
from d4k.planning.trace import Trace, trace
from d4k.planning.values import Generation, Memory, Part, Plan, RunPlan, of_run

__all__ = [
    "LADDER",
    "Choice",
    "Generation",
    "Machine",
    "Memory",
    "Part",
    "Plan",
    "RunPlan",
    "Rung",
    "Trace",
    "choose",
    "ladder",
    "measure",
    "of_run",
    "plan",
    "shapes",
    "trace",
]
