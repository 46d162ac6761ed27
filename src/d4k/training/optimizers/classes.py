"""Classes of optimizers by name, and what of a run's settings they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any

import attrs
import torch

from d4k.config import OptimizerSettings
from d4k.errors import ConfigError, did_you_mean, first_line

__all__ = ["find_class", "keywords", "refuse_options"]

PACKAGES = {"adamw-8bit": "torchao", "adamw-bf16": "torchao", "prodigy": "prodigyopt", "schedule-free": "schedulefree"}
"""What brings an optimizer; `pip install d4k[optimizers]` installs all of them."""


def find_class(name: str, seed: int = 0) -> Callable[..., Any]:
    """The class behind a name.

    Args:
        name: one of `d4k.config.OPTIMIZERS` other than "muon", or `module:Class`.
        seed: decides how weights in bfloat16 are rounded.

    Raises:
        ConfigError: its package is not installed, or there is no such class.
    """
    if ":" in name:
        return _named_class(name)
    try:
        if name == "adamw-8bit":
            return _eight_bit()
        if name == "adamw-bf16":
            from d4k.training.optimizers.low_bit import rounding

            return rounding(seed)
        if name == "prodigy":
            from prodigyopt import Prodigy

            return _quiet(Prodigy)
        if name == "schedule-free":
            from schedulefree import AdamWScheduleFree

            return AdamWScheduleFree  # type: ignore[no-any-return]
    except ImportError as error:
        package = PACKAGES[name]
        raise ConfigError(
            f"optimizer.name = '{name}' needs {package}: pip install {package}, or choose 'adamw'"
        ) from error
    return torch.optim.AdamW


def _eight_bit() -> Callable[..., Any]:
    """That of torchao where it is installed, which works on a CPU as well; else that of bitsandbytes."""
    if find_spec("torchao") is None and find_spec("bitsandbytes") is not None:
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit  # type: ignore[no-any-return]
    from d4k.training.optimizers.low_bit import eight_bit

    return eight_bit()


def _quiet(found: Callable[..., Any]) -> Callable[..., Any]:
    """A class that prints to standard output when it is made, and now does not."""

    def make(*parameters: Any, **options: Any) -> Any:
        with redirect_stdout(StringIO()):
            return found(*parameters, **options)

    make.__signature__ = inspect.signature(found)  # type: ignore[attr-defined]
    make.__name__ = getattr(found, "__name__", "optimizer")
    return make


def _named_class(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ImportError as error:
        raise ConfigError(f"optimizer.name = '{name}': cannot import {module}: {first_line(error)}") from error
    except AttributeError:
        classes = [key for key, value in vars(import_module(module)).items() if _is_optimizer(value)]
        raise ConfigError(
            f"optimizer.name = '{name}': {module} has no '{attribute}'{did_you_mean(attribute, classes)}"
        ) from None
    if not _is_optimizer(found):
        raise ConfigError(f"optimizer.name = '{name}' must name a subclass of torch.optim.Optimizer")
    return found  # type: ignore[no-any-return]


def _is_optimizer(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer)


def keywords(found: Callable[..., Any], settings: OptimizerSettings) -> dict[str, Any]:
    """What the class is made with: its options, and those of the common settings that it takes.

    Raises:
        ConfigError: it has no such option, or a common setting that was changed has no effect on it.
    """
    parameters = inspect.signature(found).parameters
    common = {
        "lr": settings.lr,
        "betas": (settings.beta1, settings.beta2),
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    usual = OptimizerSettings()
    for key, fields in {"betas": ("beta1", "beta2"), "eps": ("eps",), "weight_decay": ("weight_decay",)}.items():
        changed = [name for name in fields if getattr(settings, name) != getattr(usual, name)]
        if key not in parameters and changed:
            raise ConfigError(
                f"optimizer.{changed[0]} has no effect on '{settings.name}', which has no {key}: leave it out"
            )
    refuse_options(settings, [name for name in parameters if name not in ("self", "params")])
    return {name: value for name, value in common.items() if name in parameters} | dict(settings.options)


def refuse_options(settings: OptimizerSettings, known: list[str]) -> None:
    """Refuse options that an optimizer does not have, or that are settings of their own.

    Raises:
        ConfigError: there is such an option.
    """
    own = {field.name for field in attrs.fields(OptimizerSettings)} | {"betas"}
    for name in settings.options:
        if name in own:
            raise ConfigError(f"optimizer.options.{name} is a setting of its own: set optimizer.lr, beta1, beta2, ...")
        if name not in known:
            others = [option for option in known if option not in own]
            raise ConfigError(
                f"optimizer '{settings.name}' has no option '{name}'{did_you_mean(name, others)} "
                f"Known: {', '.join(others) or 'none'}."
            )
