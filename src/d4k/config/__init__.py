"""Settings: what is allowed, how they are read and written, and the sections of a training run."""

from d4k.config.choices import (
    CROPS,
    DENSITIES,
    OFFLOADED,
    OPTIMIZERS,
    PRECISIONS,
    QUANTIZATIONS,
    SCHEDULES,
    STRATEGIES,
    WEIGHTINGS,
)
from d4k.config.engine import EMASettings, ParallelSettings, TrackingSettings, ValidationSettings
from d4k.config.keeping import kept_at_once
from d4k.config.keywords import run_sections
from d4k.config.rules import Validator, flag, names, number, one_of, optional, shown, table, text, text_or_empty, whole
from d4k.config.run import (
    AdapterSettings,
    Component,
    DataSettings,
    FlowSettings,
    OptimizerSettings,
    RunConfig,
    ScheduleSettings,
    TrainingSettings,
)
from d4k.config.toml import T, from_mapping, read_toml, settings_class, with_settings, write_toml

__all__ = [
    "CROPS",
    "DENSITIES",
    "OFFLOADED",
    "OPTIMIZERS",
    "PRECISIONS",
    "QUANTIZATIONS",
    "SCHEDULES",
    "STRATEGIES",
    "WEIGHTINGS",
    "AdapterSettings",
    "Component",
    "DataSettings",
    "EMASettings",
    "FlowSettings",
    "OptimizerSettings",
    "ParallelSettings",
    "RunConfig",
    "ScheduleSettings",
    "T",
    "TrackingSettings",
    "TrainingSettings",
    "ValidationSettings",
    "Validator",
    "flag",
    "from_mapping",
    "kept_at_once",
    "names",
    "number",
    "one_of",
    "optional",
    "read_toml",
    "run_sections",
    "settings_class",
    "shown",
    "table",
    "text",
    "text_or_empty",
    "whole",
    "with_settings",
    "write_toml",
]
