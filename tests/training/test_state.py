"""Checkpoints of a run come back whole, or say what is wrong with them."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from d4k.errors import CheckpointError, ConfigError, D4KError, OutputError
from d4k.models import RunFolder
from d4k.training import Share, State, load_state, save_state
from d4k.training.state import check_share


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """`small_disk(n)`: from now on no file may grow beyond n bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def pieces() -> Any:
    """`pieces(width, step)`: a module, its optimizer and its schedule after one step."""

    def make(width: int = 30, step: int = 1, **more: Any) -> State:
        module = torch.nn.Linear(width, width)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        module(torch.ones(1, width)).sum().backward()
        optimizer.step()
        schedule.step()
        return State(module, optimizer, schedule, step, **more)

    return make


def test_state_comes_back_whole(pieces: Any, tmp_path: Path) -> None:
    """Weights, moments, rate and step."""
    state, other = pieces(step=7), pieces()
    path = save_state(RunFolder(tmp_path), state)
    load_state(path, other)
    assert other.step == 7
    assert path == tmp_path / "checkpoints" / "step-00000007"
    assert all(torch.equal(a, b) for a, b in zip(state.module.parameters(), other.module.parameters(), strict=True))
    assert other.schedule.get_last_lr() == state.schedule.get_last_lr() == [0.05]
    for key, values in state.optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(value, other.optimizer.state_dict()["state"][key][name])


def test_nothing_is_pickled_that_runs_code(pieces: Any, tmp_path: Path) -> None:
    """A checkpoint whose optimizer state holds an object other than plain data is refused."""
    path = save_state(RunFolder(tmp_path), pieces())
    torch.save({"optimizer": Path("x"), "schedule": {}}, path / "optimizer.pt")
    with pytest.raises(CheckpointError, match="cannot resume from"):
        load_state(path, pieces())


def test_newest_whole_state_is_found(pieces: Any, tmp_path: Path) -> None:
    """Folders without `state.json` are not states."""
    run = RunFolder(tmp_path)
    assert run.latest_state() is None
    oldest = save_state(run, pieces(step=9))
    newest = save_state(run, pieces(step=10))
    run.state(11).mkdir()
    assert run.states() == [oldest, newest]
    assert run.latest_state() == newest


@pytest.mark.parametrize("name", ["state.json", "trainable.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_state_is_a_checkpoint_error(pieces: Any, tmp_path: Path, name: str, damage: str) -> None:
    """Whichever file was cut or lost, the message says which folder to delete, if there is a checkpoint before it."""
    run = RunFolder(tmp_path)
    file = save_state(run, pieces(step=2)) / name
    if damage == "cut":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=r"step-00000002: .*[^.]\. There is none before it: put back a copy"):
        load_state(file.parent, pieces())
    save_state(run, pieces(step=1))
    with pytest.raises(CheckpointError, match=r"step-00000002: .*[^.]\. Delete that folder to resume from the one"):
        load_state(file.parent, pieces())


def test_state_of_another_model_is_refused(pieces: Any, tmp_path: Path) -> None:
    """Shapes that do not fit are no crash."""
    path = save_state(RunFolder(tmp_path), pieces(30))
    with pytest.raises(CheckpointError, match="is of shape .30, 30., and .20, 20. here"):
        load_state(path, pieces(20))


@pytest.mark.parametrize("limit", [200, 5000])
def test_full_disk_leaves_the_state_before(
    pieces: Any, tmp_path: Path, small_disk: Callable[[int], None], limit: int
) -> None:
    """Whether the weights or the optimizer did not fit: an OutputError that names the folder, and no litter."""
    save_state(RunFolder(tmp_path), pieces())
    more = pieces(step=2)
    small_disk(limit)
    with pytest.raises(OutputError, match=r"cannot write .*step-00000002: is the disk full\?"):
        save_state(RunFolder(tmp_path), more)
    small_disk(resource.RLIM_INFINITY)
    assert [p.name for p in RunFolder(tmp_path).checkpoints.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory: 8 GB")]
)
def test_memory_that_runs_out_is_not_a_damaged_checkpoint(
    pieces: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Nobody is told to delete a checkpoint that is whole."""
    path = save_state(RunFolder(tmp_path), pieces())
    other = pieces()

    def full(state: Any) -> None:
        raise error

    monkeypatch.setattr(other.optimizer, "load_state_dict", full)
    with pytest.raises(D4KError, match="not enough memory to resume from .*step-00000001") as caught:
        load_state(path, other)
    assert "elete" not in str(caught.value)


def test_an_interruption_while_loading_stays_one(pieces: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no damaged checkpoint either."""
    path = save_state(RunFolder(tmp_path), pieces())
    other = pieces()

    def interrupted(state: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(other.optimizer, "load_state_dict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_state(path, other)


def test_rows_average_and_scaler_come_back(pieces: Any, tmp_path: Path) -> None:
    """What else a run has: the lines of its losses, its moving average, the scale of float16."""
    scaler, fresh = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (8.0, 2.0))
    for one in (scaler, fresh):
        one.scale(torch.ones(1))
    rows, average = [{"step": 1, "loss": 0.5}], {"weight": torch.full((30, 30), 0.25)}
    path = save_state(RunFolder(tmp_path), pieces(rows=rows, ema=average, scaler=scaler))
    other = pieces(ema={"weight": torch.zeros(30, 30)}, scaler=fresh)
    load_state(path, other)
    assert other.rows == rows
    assert torch.equal(other.ema["weight"], average["weight"])
    assert fresh.get_scale() == 8.0
    assert sorted(file.name for file in path.iterdir()) == [
        "ema.safetensors", "losses.jsonl", "optimizer.pt", "state.json", "trainable.safetensors",
    ]  # fmt: skip


def test_a_checkpoint_of_the_first_format_is_read(pieces: Any, tmp_path: Path) -> None:
    """It has no rows, and does not say how the run was shared, since one process had it."""
    path = save_state(RunFolder(tmp_path), pieces())
    (path / "losses.jsonl").unlink()
    (path / "state.json").write_text('{"format": 1, "step": 7}')
    other = pieces()
    load_state(path, other)
    assert (other.step, other.rows) == (7, [])
    assert check_share(path, Share(1, "single", 1, 4)) is None


def test_a_checkpoint_of_a_later_format_is_refused(pieces: Any, tmp_path: Path) -> None:
    """By name, and not as a damaged one."""
    path = save_state(RunFolder(tmp_path), pieces())
    (path / "state.json").write_text('{"format": 3, "step": 7}')
    with pytest.raises(CheckpointError, match="is of format 3, and this version of d4k reads up to 2"):
        load_state(path, pieces())


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Share(2, "ddp", 4, 3), None),
        (Share(1, "single", 4, 6), "shared by 2 processes, ddp, accumulation 3 and goes on with 1 process, accum"),
        (Share(6, "fsdp2", 4, 1), "goes on with 6 processes, fsdp2, accumulation 1"),
        (Share(2, "fsdp2", 4, 3), "goes on with 2 processes, fsdp2"),
    ],
)
def test_another_launch_goes_on_with_equal_batches(pieces: Any, tmp_path: Path, now: Share, words: str | None) -> None:
    """As many batches a step: it is said that sums have another order; in an equal launch nothing is."""
    said = check_share(save_state(RunFolder(tmp_path), pieces(), Share(2, "ddp", 4, 3)), now)
    assert (said is None) if words is None else (said is not None and words in said)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Share(2, "ddp", 2, 3), "training.batch_size is 2: set it to 4"),
        (Share(1, "single", 4, 3), "set training.accumulation to 6"),
        (Share(4, "ddp", 4, 3), "start a number of processes that divides 6"),
    ],
)
def test_a_launch_with_other_batches_is_refused(pieces: Any, tmp_path: Path, now: Share, words: str) -> None:
    """The message says what to set."""
    path = save_state(RunFolder(tmp_path), pieces(), Share(2, "ddp", 4, 3))
    with pytest.raises(ConfigError, match=words):
        check_share(path, now)
