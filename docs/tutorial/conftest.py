"""The plugin of the tutorial, as if it were installed."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from d4k.plugins import discovery as plugins

PLUGIN = Path(__file__).parent / "d4k-sana"
sys.path.insert(0, str(PLUGIN / "src"))


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """What its `pyproject.toml` says is an entry point, beside those of the environment."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (point,) = [EntryPoint(name, module, "d4k") for name, module in project["entry-points"]["d4k"].items()]
    found = [other for other in plugins.entry_points(group="d4k") if other.name != point.name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "entry_points", lambda group: [*found, point])  # noqa: ARG005
        plugins.registry.cache_clear()
        yield
    plugins.registry.cache_clear()
