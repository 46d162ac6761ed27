"""What a run reports of each step is on the disk when the step is done, or the run says why not."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d4k.errors import OutputError
from d4k.models import RunFolder
from d4k.training import read_losses
from d4k.training.journal import Journal

FULL = Path("/dev/full")
NEEDS_FULL = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def write(run: RunFolder, first: int, last: int, loss: float) -> None:
    with Journal(run, last, first) as journal:
        for step in range(first + 1, last + 1):
            journal.add(step, loss, 2.0, 0.5)


def shown(run: RunFolder, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows under a name."""
    reader = EventAccumulator(str(run.tensorboard)).Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_tensorboard_reads_what_the_journal_wrote(tmp_path: Path) -> None:
    """Loss, norm and rate of every step, under the names that are in the documentation."""
    run = RunFolder(tmp_path)
    write(run, 0, 3, loss=0.25)
    assert shown(run, "loss") == [(1, 0.25), (2, 0.25), (3, 0.25)]
    assert shown(run, "gradient norm") == [(1, 2.0), (2, 2.0), (3, 2.0)]
    assert shown(run, "learning rate") == [(1, 0.5), (2, 0.5), (3, 0.5)]


@pytest.mark.parametrize("first", [0, 2])
def test_steps_that_are_done_again_replace_the_former_ones(tmp_path: Path, first: int) -> None:
    """In both records, from a checkpoint or from the beginning."""
    run = RunFolder(tmp_path)
    write(run, 0, 3, loss=1.0)
    write(run, first, 4, loss=0.5)
    expected = [(step, 1.0 if step <= first else 0.5) for step in (1, 2, 3, 4)]
    assert [(row["step"], row["loss"]) for row in read_losses(tmp_path)] == expected
    assert shown(run, "loss") == expected


@NEEDS_FULL
@pytest.mark.parametrize("record", ["losses", "events"])
def test_a_full_disk_is_an_output_error_at_that_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    """With the way to go on, whichever file did not fit; no other thread has a traceback of its own."""
    threads = threading.active_count()
    with FULL.open("wb", buffering=0) as full, Journal(RunFolder(tmp_path), 5, 0) as journal:
        assert threading.active_count() == threads
        if record == "losses":
            journal.path.unlink()
            journal.path.symlink_to(FULL)
        else:
            monkeypatch.setattr(journal.events, "_records", type(journal.events._records)(full))
        with pytest.raises(OutputError, match=r"cannot write .*: No space left on device; resume with --resume once"):
            journal.add(1, 0.5, 1.0, 1.0)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    """A file lies where TensorBoard's folder belongs."""
    (tmp_path / "tensorboard").touch()
    with pytest.raises(OutputError, match=r"cannot write .*tensorboard: "):
        Journal(RunFolder(tmp_path), 5, 0)


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    """Reading goes up to the last whole line."""
    RunFolder(tmp_path).losses.write_text(json.dumps({"step": 1}) + '\n{"step": 2')
    assert read_losses(tmp_path) == [{"step": 1}]
