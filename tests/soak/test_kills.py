"""Fifty kills: `nox -s soak`. Too long for the tests of every day, which kill six times (tests/training/test_safety.py)."""

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
    print(
        f"\n{sum(report['kills'].values())} kills {report['kills']} of {len(report['runs'])} runs, {report['seconds']} s"
    )
    for number, run in enumerate(report["runs"]):
        print(f"run {number}: {', '.join(run['kills'])}: {run['wrong'] or 'equal'}")
    assert sum(report["kills"].values()) >= KILLS
    assert [run for run in report["runs"] if run["wrong"]] == []
