"""The benchmark of a step's overhead compares like with like."""

from __future__ import annotations

import runpy
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One round after the warm-up, of small pictures."""
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "overhead.py"))
    arguments = Namespace(rounds=1, size=64, batch_size=2, precision="no")
    return benchmark["run_rounds"](arguments, tmp_path_factory.mktemp("overhead"))


def test_every_loop_does_every_step(rounds: Any) -> None:
    """The warm-up of five, and one that counts, each with its wall and its processor time."""
    assert set(rounds.losses) == {"d4k", "bare loop", "diffusers' script", "diffusers' script, latents cached"}
    for kept in (rounds.losses, rounds.wall, rounds.cpu):
        assert {len(values) for values in kept.values()} == {6}


def test_bare_loop_trains_what_d4k_trains(rounds: Any) -> None:
    """The losses agree step by step, so that the two do the same work; those of the script are of other noise."""
    assert rounds.losses["bare loop"] == pytest.approx(rounds.losses["d4k"], rel=1e-5)
    assert len(set(rounds.losses["bare loop"])) == 6
    assert rounds.losses["diffusers' script"] != pytest.approx(rounds.losses["d4k"], rel=1e-2)
    assert all(0 < loss < 10 for values in rounds.losses.values() for loss in values)
