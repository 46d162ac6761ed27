"""Runs the code blocks of the documentation, each page in a temporary working directory of its own."""

from __future__ import annotations

import os
from contextlib import ExitStack, chdir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that wants the network is a mistake, and should fail at once


def enter(namespace: dict[str, Any]) -> None:
    """Start a page in an empty folder."""
    stack = namespace["_stack"] = ExitStack()
    folder = Path(stack.enter_context(TemporaryDirectory()))
    stack.enter_context(chdir(folder))


def leave(namespace: dict[str, Any]) -> None:
    """Go back, and remove the folder."""
    namespace["_stack"].close()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/tutorial/**/*.md", "plugins/*/README.md"],
    setup=enter,
    teardown=leave,
).pytest()
