"""What a run reports of each step is on the disk when the step is done, or the run says why not."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d4k.errors import DataError, OutputError
from d4k.models import RunFolder
from d4k.training import read_losses
from d4k.training.journal import Journal
from d4k.training.step import StepResult

FULL = Path("/dev/full")
NEEDS_FULL = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def write(run: RunFolder, first: int, last: int, loss: float) -> None:
    with Journal(run, last, first, read_losses(run.path)[:first]) as journal:
        for step in range(first + 1, last + 1):
            journal.add(step, StepResult(loss, 2.0), 0.5)


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
def test_a_full_disk_is_an_output_error_at_that_step(tmp_path: Path) -> None:
    """With the way to go on; no other thread has a traceback of its own."""
    threads = threading.active_count()
    with Journal(RunFolder(tmp_path), 5, 0, []) as journal:
        assert threading.active_count() == threads
        journal.path.unlink()
        journal.path.symlink_to(FULL)
        with pytest.raises(OutputError, match=r"cannot write .*: No space left on device; resume with --resume once"):
            journal.add(1, StepResult(0.5, 1.0), 1.0)


@NEEDS_FULL
def test_a_full_disk_ends_tensorboard_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once; `losses.jsonl` goes on."""
    with FULL.open("wb", buffering=0) as full, Journal(RunFolder(tmp_path), 3, 0, []) as journal:
        journal.add(1, StepResult(0.5, 1.0), 1.0)
        monkeypatch.setattr(journal.events, "_records", type(journal.events._records)(full))  # type: ignore[union-attr]
        with pytest.warns(UserWarning, match="No space left on device; training goes on without TensorBoard") as said:
            journal.add(2, StepResult(0.5, 1.0), 1.0)
        journal.add(3, StepResult(0.5, 1.0), 1.0)
        assert len(said) == 1
    assert [row["step"] for row in read_losses(tmp_path)] == [1, 2, 3]
    assert shown(RunFolder(tmp_path), "loss") == [(1, 0.5)]


def test_a_folder_of_tensorboard_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A file lies in its place."""
    (tmp_path / "tensorboard").touch()
    with (
        pytest.warns(UserWarning, match=r"cannot write .*tensorboard: File exists; training goes on without"),
        Journal(RunFolder(tmp_path), 5, 0, []) as journal,
    ):
        journal.add(1, StepResult(0.5, 1.0), 1.0)
    assert len(read_losses(tmp_path)) == 1


def row(step: int) -> dict[str, Any]:
    return {"step": step, "loss": 0.5, "gradient_norm": 1.0, "lr": 1.0, "seconds": 0.1}


def text(*steps: int) -> str:
    return "".join(json.dumps(row(step)) + "\n" for step in steps)


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    """Reading goes up to the last whole line."""
    RunFolder(tmp_path).losses.write_text(text(1) + '{"step": 2')
    assert read_losses(tmp_path) == [row(1)]


DAMAGED = {
    "torn": (text(1) + '{"step": 2, "lo\n' + text(3), 2, "is not readable JSON"),
    "zeroes": (text(1, 2) + "\0" * 40 + "\n", 3, "is not readable JSON"),
    "number": (text(1) + "7\n" + text(3), 2, "not a JSON object"),
    "NaN": (text(1) + '{"step": 2, "loss": NaN}\n', 2, "it holds NaN"),
    "doubled": (text(1, 2, 2, 3), 3, "is of step 2, not of step 3: lines are missing or doubled"),
    "gap": (text(1, 3), 2, "is of step 3, not of step 2: lines are missing or doubled"),
    "no step": (text(1) + "{}\n", 2, "is of step None, not of step 2"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_line_is_named_when_read(tmp_path: Path, name: str) -> None:
    """Nothing is left out in silence: file, line, what is wrong, and the way out."""
    content, line, said = DAMAGED[name]
    RunFolder(tmp_path).losses.write_text(content)
    with pytest.raises(DataError, match=rf"losses\.jsonl, line {line} .*{said}.*resume the run to mend it") as caught:
        read_losses(tmp_path)
    assert (caught.value.path, caught.value.line) == (RunFolder(tmp_path).losses, line)


@pytest.mark.parametrize("name", [*DAMAGED, "short", "missing", "altered"])
def test_a_damaged_file_is_mended_from_the_checkpoint(tmp_path: Path, name: str) -> None:
    """And that is said, in one line."""
    run = RunFolder(tmp_path)
    contents = {name: content for name, (content, _, _) in DAMAGED.items()}
    contents |= {"short": text(1, 2), "altered": text(1, 2, 3).replace("0.5", "0.6")}
    if name in contents:
        run.losses.write_text(contents[name])
    kept = [row(step) for step in (1, 2, 3)]
    with pytest.warns(UserWarning, match=r"losses\.jsonl was damaged \(.*\); its lines of steps 1 to 3 come") as said:
        Journal(run, 5, 3, kept).__exit__()
    assert len(said) == 1
    assert read_losses(tmp_path) == kept


def test_what_follows_the_checkpoint_may_be_torn(tmp_path: Path) -> None:
    """Those steps are done again: nothing is lost, and nothing said."""
    run = RunFolder(tmp_path)
    run.losses.write_text(text(1, 2, 3) + '{"step": 4, "l')
    Journal(run, 5, 2, [row(1), row(2)]).__exit__()
    assert read_losses(tmp_path) == [row(1), row(2)]


def test_a_step_that_was_skipped_is_valid_json(tmp_path: Path) -> None:
    """Neither NaN nor infinity is written; the pictures are."""
    with Journal(RunFolder(tmp_path), 3, 0, []) as journal:
        journal.add(1, StepResult(0.5, 1.0), 1.0)
        journal.add(2, StepResult(math.nan, math.inf, skipped=True, ids=("a", "b")), 1.0)
        assert journal.skipped_in_a_row == 1
        journal.add(3, StepResult(0.25, math.nan, skipped=True), 1.0)
        assert journal.skipped_in_a_row == 2
    rows = read_losses(tmp_path)
    assert rows == journal.rows
    assert [(one["loss"], one["gradient_norm"], one.get("skipped"), one.get("ids")) for one in rows] == [
        (0.5, 1.0, None, None), (None, None, True, ["a", "b"]), (0.25, None, True, []),
    ]  # fmt: skip
    assert shown(RunFolder(tmp_path), "loss") == [(1, 0.5), (3, 0.25)]
    with Journal(RunFolder(tmp_path), 9, 3, rows) as journal:  # also where the run is resumed
        assert journal.skipped_in_a_row == 2


def test_only_the_first_process_opens_files(tmp_path: Path) -> None:
    """The others keep the rows alone."""
    with Journal(RunFolder(tmp_path / "run"), 3, 0, [], writes=False) as journal:
        journal.add(1, StepResult(0.5, 1.0), 1.0)
    assert (len(journal.rows), (tmp_path / "run").exists()) == (1, False)
