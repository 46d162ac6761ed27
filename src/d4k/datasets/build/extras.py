"""Packages of the optional extras, asked for before anything is computed."""

from __future__ import annotations

from importlib.util import find_spec

from d4k.errors import ConfigError

__all__ = ["need_pyarrow", "need_ray"]


def need_pyarrow() -> None:
    """Refuse to work without the extra `data`.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("pyarrow") is None:
        raise ConfigError("datasets are built with pyarrow, which is not installed; try: pip install 'd4k[data]'")


def need_ray() -> None:
    """Refuse to work without the extra `ray`.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("ray") is None:
        raise ConfigError("the engine 'ray' needs ray, which is not installed; try: pip install 'd4k[ray]'")
