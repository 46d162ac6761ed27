"""A run that is told to stop finishes its step, keeps a checkpoint, and leaves with the code that schedulers expect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from d4k.cli import main
from d4k.models import RunFolder
from d4k.processes import Processes
from d4k.training import MSELoss, read_losses, train
from d4k.training.signals import InterruptedRun, Stop, TerminatedRun

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
Config = Callable[..., Any]
NUMBERS = [signal.SIGINT, signal.SIGTERM]
MSE = MSELoss.__call__


class Signalled:
    """A loss in whose n-th call this process gets signals: in the middle of a step."""

    def __init__(self, call: int, *numbers: int) -> None:
        self.left, self.numbers = call, numbers

    def __call__(self, velocity: Tensor, step: Any) -> Tensor:
        self.left -= 1
        if not self.left:
            for number in self.numbers:
                os.kill(os.getpid(), number)
        return MSE(MSELoss(), velocity, step)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize(
    ("number", "error", "code"), [(NUMBERS[0], InterruptedRun, 130), (NUMBERS[1], TerminatedRun, 143)]
)
def test_a_signal_lets_the_step_end_and_keeps_it(
    fresh: Any, dataset: Any, run_config: Config, same_weights: Any, number: int, error: Any, code: int
) -> None:
    """Also between the passes of a step; Python's handlers are put back, and the run goes on from that very step."""
    settings: dict[str, Any] = {"training": {"steps": 6, "accumulation": 2, "save_every": 4}}
    whole, parts, before = fresh(), fresh(), handlers()
    expected = train(whole, dataset, MSELoss(), run_config("whole", **settings))
    config, seen = run_config("parts", **settings), []
    with pytest.raises(error) as caught:
        train(parts, dataset, Signalled(2 * 2 + 1, number), config, on_step=lambda step, loss: seen.append(step))
    assert (caught.value.step, caught.value.code, seen) == (3, code, [1, 2, 3])
    assert isinstance(caught.value, KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    assert handlers() == before
    assert parts.trainable.training is False
    assert [state.name for state in RunFolder(Path(config.output_dir)).states()] == ["step-00000003"]
    assert train(parts, dataset, MSELoss(), config, resume=True).losses == expected.losses
    assert same_weights(parts, whole)


def test_a_second_interrupt_does_not_wait(backbone: Any, dataset: Any, run_config: Config) -> None:
    """The step is left in the middle; nothing is written, and everything is let go."""
    config, before = run_config(), handlers()
    with pytest.raises(KeyboardInterrupt) as caught:
        train(backbone, dataset, Signalled(2, signal.SIGINT, signal.SIGINT), config)
    assert not isinstance(caught.value, InterruptedRun)
    assert handlers() == before
    folder = RunFolder(Path(config.output_dir))
    assert [row["step"] for row in read_losses(folder.path)] == [1]
    assert not folder.states()
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.toml", "losses.jsonl", "tensorboard"]


def test_a_second_term_is_patient(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Schedulers and launchers send several."""
    with pytest.raises(TerminatedRun) as caught:
        train(backbone, dataset, Signalled(2, signal.SIGTERM, signal.SIGTERM), run_config())
    assert caught.value.step == 2


def test_a_signal_in_the_last_step_leaves_too(fresh: Any, dataset: Any, run_config: Config) -> None:
    """The model is written by resuming."""
    config = run_config()
    with pytest.raises(TerminatedRun):
        train(fresh(), dataset, Signalled(4, signal.SIGTERM), config)
    assert not RunFolder(Path(config.output_dir)).model.exists()
    assert len(train(fresh(), dataset, MSELoss(), config, resume=True).losses) == 4
    assert RunFolder(Path(config.output_dir)).model.is_dir()


@pytest.mark.parametrize(("number", "error"), [(NUMBERS[0], KeyboardInterrupt), (NUMBERS[1], SystemExit)])
def test_before_the_first_step_a_signal_ends_at_once(
    backbone: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch, number: int, error: Any
) -> None:
    """There is nothing to save, and no folder stays."""
    from d4k.training import run

    def told(*arguments: Any) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(run, "check_precision", told)
    config = run_config()
    with pytest.raises(error) as caught:
        train(backbone, dataset, MSELoss(), config)
    assert getattr(caught.value, "code", 143) == 143
    assert not Path(config.output_dir).exists()


def test_what_was_ignored_stays_ignored(backbone: Any, dataset: Any, run_config: Config) -> None:
    """As of a process that was started in the background, or that wants to handle a signal itself."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert train(backbone, dataset, Signalled(2, signal.SIGINT), run_config()).steps == 4
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_handles_no_signals(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Python allows only the main thread to."""
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(train(backbone, dataset, MSELoss(), run_config()).steps))
    thread.start()
    thread.join()
    assert done == [4]


class Pair(Processes):
    """One of two processes, which learns what the other says of its signals."""

    def __init__(self, other: list[float]) -> None:
        self.rank, self.count, self.other = 0, 2, torch.tensor(other)

    def sums(self, values: Tensor) -> Tensor:
        return values + self.other


def test_processes_agree_on_the_signal() -> None:
    """Whoever was told, all stop; SIGTERM counts before SIGINT."""
    stop, cpu = Stop(), torch.device("cpu")
    assert stop.agreed(Pair([0, 0]), cpu) is None
    assert stop.agreed(Pair([1, 0]), cpu) == signal.SIGINT
    assert stop.agreed(Pair([0, 1]), cpu) == signal.SIGTERM
    stop.asked = signal.SIGINT
    assert stop.agreed(Pair([0, 0]), cpu) == signal.SIGINT
    assert stop.agreed(Pair([0, 1]), cpu) == signal.SIGTERM


RECIPE = """
model = "tiny-sd3"
output_dir = "run"
dataset.name = "sample-photos"
dataset.options.names = ["coffee"]
loss.name = "mse"
data = {width = 64, height = 64, cache = "off", workers = 0}
training = {steps = 100000, save_every = 0}
adapter.rank = 1
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_leaves_with_the_code_of_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """One line says how to go on, and a shell can run it."""
    monkeypatch.chdir(tmp_path)
    Path("my run.toml").write_text(RECIPE)
    loss = Signalled(2, number)
    monkeypatch.setattr(MSELoss, "__call__", lambda self, velocity, step: loss(velocity, step))
    result = CliRunner().invoke(main, ["train", "my run.toml", "--set", "seed=7", "--device", "cpu"])
    name = signal.Signals(number).name
    assert result.exit_code == code
    assert result.output.splitlines()[-1] == (
        f"stopped by {name} after step 2, which is saved; go on with: "
        "d4k train 'my run.toml' --set seed=7 --device cpu --resume"
    )


def test_a_real_process_leaves_so(tmp_path: Path) -> None:
    """Its own handlers and exit code; no traceback, one checkpoint, no litter."""
    (tmp_path / "my run.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "d4k", "train", "my run.toml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while " 1/100000" not in said:
            said += (more := process.stderr.read(1))
            assert more, said
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
    assert process.returncode == 143
    assert "Traceback" not in said
    step = int(said.rpartition("stopped by SIGTERM after step ")[2].split(",")[0])
    run = RunFolder(tmp_path / "run")
    assert [state.name for state in run.states()] == [f"step-{step:08d}"]
    assert len(read_losses(run.path)) == step
    assert not list(run.path.rglob(".d4k*"))
