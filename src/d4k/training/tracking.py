"""Where the figures of a run go besides its folder: the trackers that accelerate knows, in the first process alone.

TensorBoard is not among them: its file is always written, by `d4k.training.events`. A tracker that fails while the run
goes on, as when the network does, is left out with one warning; training never waits for one.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType
from PIL.Image import Image

from d4k.config import RunConfig
from d4k.errors import ConfigError, D4KError, UnknownNameError, first_line
from d4k.models import RunFolder

__all__ = ["Tracking", "check_tracking", "plain_settings"]

PACKAGES = {"comet_ml": "comet-ml"}
"""Tracker -> its package, where that has another name."""

MASK = "***"

SECRET_NAME = re.compile(r"(?<![a-z])(token|(api)?keys?|passwords?|passwd|pwd|secrets?|credentials?|auth)$", re.I)
"""Ends the name of an option or a variable whose value is nobody's business; `text_tokens` is no such name."""

SECRET_VALUE = re.compile(r"hf_[A-Za-z0-9]{30,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""In a text: a token of the Hugging Face Hub, or a name and a password in an address."""


def check_tracking(config: RunConfig) -> None:
    """Refuse trackers that cannot work, and secrets that would be written to the run's `config.toml`.

    Raises:
        ConfigError: a tracker is unknown, its package is missing, or a setting holds a secret.
    """
    for name in config.tracking.trackers:
        if name == "tensorboard":
            raise ConfigError(
                "tracking.trackers: TensorBoard's file is always written, into the run's folder tensorboard/; leave "
                "'tensorboard' out"
            )
        if name not in LOGGER_TYPE_TO_CLASS:
            raise UnknownNameError("tracker", name, set(LOGGER_TYPE_TO_CLASS) - {"tensorboard"})
        if name in LoggerType.list() and name not in map(str, get_available_trackers()):
            raise ConfigError(
                f"tracking.trackers: '{name}' needs a package that is not installed; pip install "
                f"{PACKAGES.get(name, name)}"
            )
    held = _environment()
    for key, value in _flat(attrs.asdict(config)):
        if isinstance(value, str) and _masked(value, held) != value:
            raise ConfigError(
                f"{key} holds a token or a password, which the run would write into its config.toml; give it in the "
                "environment, as HF_TOKEN for the Hub"
            )


def plain_settings(config: RunConfig) -> dict[str, Any]:
    """The settings of a run as trackers get them: flat, of plain values, with `***` for what may be a secret.

    >>> from d4k.config import Component
    >>> settings = plain_settings(RunConfig("sd3", Component("folder", {"api_key": "abc"}), "runs/first"))
    >>> settings["dataset.options.api_key"], settings["optimizer.lr"]
    ('***', 0.0001)
    """
    held = _environment()
    plain: dict[str, Any] = {}
    for key, value in _flat(attrs.asdict(config)):
        if isinstance(value, bool | int | float):
            plain[key] = value
        elif value is not None:
            plain[key] = MASK if any(map(SECRET_NAME.search, key.split("."))) else _masked(str(value), held)
    return plain


class Tracking:
    """The trackers of a run. Make it in the first process alone.

    Args:
        config: of the run; see `check_tracking`.
        run: where the run is kept; trackers that keep files do it in its folder tracking/.

    Raises:
        D4KError: a tracker cannot start, as where nobody is logged in.
    """

    def __init__(self, config: RunConfig, run: RunFolder) -> None:
        self.trackers: dict[str, Any] = {}
        for name in config.tracking.trackers:
            try:
                self.trackers[name] = _started(name, config, run)
            except Exception as error:
                self.finish()
                raise D4KError(
                    f"tracker '{name}' cannot start: {type(error).__name__}: {_hidden(first_line(error))}. Set it up, "
                    "or leave it out of tracking.trackers"
                ) from error

    def show(self, step: int, figures: Mapping[str, float], pictures: Mapping[str, Image]) -> None:
        """Report figures and pictures of a step by their names; a tracker that takes no pictures gets the figures."""
        arrays = {name: np.asarray(picture)[None] for name, picture in pictures.items()}
        if figures:
            self._each(lambda tracker: tracker.log(dict(figures), step=step))
        self._each(lambda tracker: _log_images(tracker, arrays, step))

    def finish(self) -> None:
        """End the run in each tracker."""
        self._each(lambda tracker: tracker.finish())
        self.trackers = {}

    def _each(self, act: Callable[[Any], object]) -> None:
        """Do it with each tracker; one that fails is left out from then on."""
        for name, tracker in list(self.trackers.items()):
            try:
                act(tracker)
            except Exception as error:
                del self.trackers[name]
                warnings.warn(
                    f"tracker '{name}' failed: {type(error).__name__}: {_hidden(first_line(error))}. Training goes on "
                    "without it; the run's folder has all figures",
                    stacklevel=3,
                )


def _started(name: str, config: RunConfig, run: RunFolder) -> Any:
    """A tracker that has begun a run, and has its settings."""
    kind = LOGGER_TYPE_TO_CLASS[name]
    called, folder = config.tracking.name or run.path.absolute().name, run.tracking
    given: list[Any] = [config.tracking.project]
    if kind.requires_logging_directory or name == "wandb":
        folder.mkdir(parents=True, exist_ok=True)
    if kind.requires_logging_directory:
        given.append(folder)
    tracker = kind(*given, **_options(name, called, folder))
    tracker.start()
    tracker.store_init_configuration(plain_settings(config))
    return tracker


def _options(name: str, called: str, folder: Path) -> dict[str, Any]:
    """What the tracker is told of the run's name, and of a run of that name that is resumed, in its own words."""
    return {
        "wandb": {"name": called, "dir": str(folder)},
        "trackio": {"name": called, "resume": "allow"},
        "mlflow": {"run_name": called},
        "clearml": {"task_name": called},
        "swanlab": {"experiment_name": called},
    }.get(name, {})


def _log_images(tracker: Any, arrays: Mapping[str, Any], step: int) -> None:
    """Hand over pictures, where the tracker takes any: name -> (1, H, W, 3) uint8."""
    if not arrays or not hasattr(tracker, "log_images"):
        return
    tracker.log_images(dict(arrays), step=step)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of nested tables and lists under its name with dots."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield from _flat({str(place): each for place, each in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _environment() -> list[str]:
    """What the environment keeps in variables whose names say that it is secret, such as HF_TOKEN."""
    return [value for name, value in os.environ.items() if len(value) >= 12 and SECRET_NAME.search(name)]


def _masked(text: str, held: list[str]) -> str:
    """A text without the secrets that are known by their form or from the environment."""
    for secret in held:
        text = text.replace(secret, MASK)
    return SECRET_VALUE.sub(MASK, text)


def _hidden(text: str) -> str:
    """A text of somebody else's that may name what should not be told, such as an address with a password."""
    return _masked(text, _environment())
