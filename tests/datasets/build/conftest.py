"""Every test here knows the filter `grey`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from build_cases import GreyPlugin


@pytest.fixture(autouse=True)
def grey_plugin(install: Callable[..., None]) -> None:
    install(grey=GreyPlugin)
