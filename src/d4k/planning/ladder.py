"""The ways to make a training run fit, from the cheapest to the dearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from d4k.adapters import resolve_model
from d4k.models import ModelRef
from d4k.planning.plan import plan_training
from d4k.planning.shapes import load_shapes, reference
from d4k.planning.training import LEAN
from d4k.planning.values import Generation, RunPlan

__all__ = ["LADDER", "Rung", "ladder"]


@frozen
class Rung:
    """One way to need less.

    Args:
        name: what it is called.
        settings: fields of `RunPlan` that differ from what was asked for.
        processes: whether it is for one process ("one"), several ("several") or both ("any").
    """

    name: str
    settings: Mapping[str, Any]
    processes: str = "any"


EIGHT, SHARED = {"optimizer": "adamw-8bit"}, {"strategy": "fsdp2"}
LADDER = (
    Rung("gradient checkpointing", {}),
    Rung("gradient checkpointing and adamw-8bit", EIGHT),
    Rung("gradient checkpointing and optimizer offload", {"offload": "optimizer"}, "one"),
    Rung("gradient checkpointing and fsdp2", SHARED, "several"),
    Rung("gradient checkpointing, fsdp2 and offload all", {**SHARED, "offload": "all"}, "several"),
    Rung(
        "gradient checkpointing, optimizer offload and activation offload",
        {"offload": "optimizer", "activation_offload": True},
        "one",
    ),
    Rung(
        "gradient checkpointing, fsdp2, offload all and activation offload",
        {**SHARED, "offload": "all", "activation_offload": True},
        "several",
    ),
)
"""From the cheapest to the dearest: computing twice costs a third of a step, and moving state or weights more."""


def ladder(model: str | ModelRef, generation: Generation, run: RunPlan) -> Iterator[tuple[str, int]]:
    """Each way that differs from what was asked for, with the bytes that a process needs; planned when it is asked for.

    Args:
        model: as of `plan`.
        generation: the size of the pictures.
        run: as asked for.
    """
    found, _ = resolve_model(reference(model), configs=True)
    usual = load_shapes(found, (), run.weights).defaults.size
    for rung in LADDER:
        if not _applies(rung, run):
            continue
        settings = {**rung.settings, "checkpointing": True}
        if rung.settings.get("strategy") == "fsdp2" and run.optimizer in ("adamw-8bit", "prodigy"):
            settings["optimizer"] = "adamw"  # the others do not work with it
        other = evolve(run, **settings)
        memory, _, _ = plan_training(found, other, generation.width or usual, generation.height or usual)
        yield rung.name, memory.peaks[LEAN]


def _applies(rung: Rung, run: RunPlan) -> bool:
    if rung.processes != "any" and (rung.processes == "several") is not (run.processes > 1):
        return False
    if "optimizer" in rung.settings and (run.optimizer != "adamw" or run.sharing == "fsdp2"):
        return False
    rank = ("none", "optimizer", "all")
    if rank.index(rung.settings.get("offload", "none")) < rank.index(run.offload):
        return False
    asked = {**rung.settings, "checkpointing": True}
    return any(getattr(run, name) != value for name, value in asked.items())
