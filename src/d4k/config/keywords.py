"""Settings of a run as keywords of Python: each goes to the section of the TOML file that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from d4k.config.engine import EMASettings, ParallelSettings, TrackingSettings, ValidationSettings
from d4k.config.run import AdapterSettings, DataSettings, FlowSettings, OptimizerSettings, TrainingSettings
from d4k.errors import ConfigError, did_you_mean

__all__ = ["run_sections"]

SECTIONS = {"data": DataSettings, "flow": FlowSettings, "optimizer": OptimizerSettings, "training": TrainingSettings}
PREFIXED = {
    "adapter": AdapterSettings,
    "parallel": ParallelSettings,
    "ema": EMASettings,
    "validation": ValidationSettings,
    "tracking": TrackingSettings,
}
HOMES: dict[str, tuple[str, ...]] = {
    "seed": ("seed",),
    "schedule": ("schedule", "name"),
    "warmup_steps": ("schedule", "warmup_steps"),
    "optimizer": ("optimizer", "name"),
    **{
        f.name: (section, f.name)
        for section, cls in SECTIONS.items()
        for f in attrs.fields(cls)
        if f.name not in ("name", "options")
    },
    "optimizer_options": ("optimizer", "options"),
    **{f"{section}_{f.name}": (section, f.name) for section, cls in PREFIXED.items() for f in attrs.fields(cls)},
}


def run_sections(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables, as a run's TOML has them.

    Args:
        settings: any key of the sections data, flow, optimizer and training; `seed`; `schedule`, `warmup_steps` and
            `optimizer` by their names; `optimizer_options`; keys of the sections adapter, parallel, ema, validation and
            tracking after the name of their section, such as `ema_decay`.

    Raises:
        ConfigError: a name is none of these.

    >>> run_sections({"lr": 1e-5, "adapter_rank": 16})
    {'optimizer': {'lr': 1e-05}, 'adapter': {'rank': 16}}
    """
    tables: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in HOMES:
            known = ", ".join(sorted(HOMES))
            raise ConfigError(f"unknown setting '{name}'{did_you_mean(name, HOMES)} Known: {known}.")
        *sections, key = HOMES[name]
        table = tables
        for section in sections:
            table = table.setdefault(section, {})
        table[key] = value
    return tables
