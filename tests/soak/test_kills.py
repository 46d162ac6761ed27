"""Fifty kills, for `nox -s soak`; the tests of every day kill five times (tests/training/test_safety.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = int(os.environ.get("D4K_KILLS", "50"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor SIGKILL")
def test_runs_that_were_killed_end_as_if_nobody_had(tmp_path: Path) -> None:
    """Losses, weights, optimizer and model bit by bit, with no repair but `--resume`, and no litter."""
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), str(tmp_path), str(KILLS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    total = sum(report["kills"].values())
    print(f"\n{total} kills {report['kills']} of {len(report['runs'])} runs, {report['seconds']} s")
    for number, run in enumerate(report["runs"]):
        print(f"run {number}: {', '.join(run['kills'])}: {run['wrong'] or 'equal'}")
    assert total >= KILLS
    assert [run for run in report["runs"] if run["wrong"]] == []
