"""What a run refuses before it touches anything, and what killed, stale and foreign states cannot do to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from d4k.cli import main
from d4k.config import write_toml
from d4k.errors import ConfigError, OutputError
from d4k.images import open_picture
from d4k.models import RunFolder
from d4k.training import Encoding, Feed, MSELoss, choose_pictures, read_losses, train

Config = Callable[..., Any]
CPU = torch.device("cpu")


def weights(backbone: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.trainable.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class Stop(Exception):
    """An interruption from outside."""


def stop_at(last: int) -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        if step == last:
            raise Stop

    return on_step


class StopInside:
    """A loss that is interrupted in its n-th call, between the passes of a step."""

    def __init__(self, call: int) -> None:
        self.left = call

    def __call__(self, velocity: Tensor, step: Any) -> Tensor:
        self.left -= 1
        if not self.left:
            raise Stop
        return MSELoss()(velocity, step)


def test_gradients_of_an_interrupted_step_are_dropped(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Resumed in the same session, a run that stopped between two passes of a step equals one that never stopped."""
    settings: dict[str, Any] = {"training": {"steps": 4, "save_every": 2, "accumulation": 2}}
    whole, parts = fresh(), fresh()
    expected = train(whole, dataset, MSELoss(), run_config("whole", **settings))
    config = run_config("parts", **settings)
    with pytest.raises(Stop):
        train(parts, dataset, StopInside(2 * 2 + 2), config)
    assert any(parameter.grad is not None for parameter in parts.trainable.parameters())
    assert train(parts, dataset, MSELoss(), config, resume=True).losses == expected.losses
    assert same(weights(parts), weights(whole))


def test_fewer_steps_than_were_done_are_refused(fresh: Any, dataset: Any, run_config: Config) -> None:
    """No checkpoint gets a false number, and the record stays."""
    run = train(fresh(), dataset, MSELoss(), run_config(training={"steps": 6, "save_every": 2}))
    before = {path: path.stat().st_mtime_ns for path in run.output_dir.rglob("*")}
    with pytest.raises(ConfigError, match="has done 6 steps, and training.steps is 3: give 6 or more to resume it"):
        train(fresh(), dataset, MSELoss(), run_config(training={"steps": 3, "save_every": 2}), resume=True)
    assert {path: path.stat().st_mtime_ns for path in run.output_dir.rglob("*")} == before


def test_a_finished_run_that_is_resumed_saves_its_model_again(fresh: Any, dataset: Any, run_config: Config) -> None:
    """As after a kill between the last checkpoint and the model; the checkpoint is not written anew."""
    config = run_config()
    run = train(fresh(), dataset, MSELoss(), config)
    state = RunFolder(run.output_dir).state(4) / "trainable.safetensors"
    before = state.stat().st_mtime_ns
    (run.model / "denoiser.safetensors").unlink()
    again = train(fresh(), dataset, MSELoss(), config, resume=True)
    assert again.losses == run.losses
    assert state.stat().st_mtime_ns == before
    assert (run.model / "denoiser.safetensors").is_file()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_bfloat16_weights_are_not_fine_tuned(fresh: Any, dataset: Any, run_config: Config, precision: str) -> None:
    """At a learning rate of 1e-6 nearly every update would be rounded away; nothing is written."""
    config = run_config(training={"precision": precision})
    with pytest.raises(ConfigError, match=r"weights are bfloat16, which rounds most updates .*dtype='float32'"):
        train(fresh(torch.bfloat16), dataset, MSELoss(), config)
    assert not Path(config.output_dir).exists()


def test_an_adapter_is_trained_over_bfloat16_weights(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Its own matrices are float32."""
    config = run_config(training={"precision": "bf16"}, adapter={"rank": 2, "targets": ["into"]})
    assert train(fresh(torch.bfloat16), dataset, MSELoss(), config).steps == 4


def test_the_environment_does_not_override_the_run(
    fresh: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither accumulation nor precision nor the device comes from accelerate's variables."""
    settings = {"training": {"accumulation": 2}}
    expected, other = fresh(), fresh()
    losses = train(expected, dataset, MSELoss(), run_config("a", **settings)).losses
    for name, value in [("GRADIENT_ACCUMULATION_STEPS", "4"), ("MIXED_PRECISION", "bf16"), ("USE_CPU", "false")]:
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert train(other, dataset, MSELoss(), run_config("b", **settings)).losses == losses
    assert same(weights(expected), weights(other))
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORLD_SIZE", "2", "a launcher started 2 processes that cannot find each other, since MASTER_ADDR is not set"),
        ("OMPI_COMM_WORLD_SIZE", "8", "a launcher started 8"),
        ("ACCELERATE_USE_FSDP", "true", "training does not work with FSDP1: use DDP"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "training does not work with DeepSpeed"),
    ],
)
def test_launches_that_cannot_work_are_refused(
    backbone: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    """Before the folder is made."""
    monkeypatch.setenv(name, value)
    config = run_config()
    with pytest.raises(ConfigError, match=said):
        train(backbone, dataset, MSELoss(), config)
    assert not Path(config.output_dir).exists()


def test_the_command_refuses_a_launch_before_it_loads_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would read it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = ["model=nowhere", "dataset.name=folder", "output_dir=run"]
    result = CliRunner().invoke(main, ["train", *(word for setting in arguments for word in ("--set", setting))])
    assert (result.exit_code, "a launcher started 2" in result.output) == (2, True)


def test_a_mistake_in_a_recipe_names_the_file(tmp_path: Path) -> None:
    """And where settings are given, those as well."""
    file = tmp_path / "run.toml"
    file.write_text("[training]\nstps = 1\n")
    for more, places in [([], str(file)), (["--set", "seed=1"], f"{file} and --set")]:
        result = CliRunner().invoke(main, ["train", str(file), *more])
        assert f"{places}: unknown key 'training.stps'" in result.output


class OnGpu(Tensor):
    """A tensor that says whether it was brought to the CPU."""

    def cpu(self, *args: Any, **kwargs: Any) -> Tensor:
        brought.append(self.shape)
        return self.as_subclass(Tensor)


brought: list[torch.Size] = []


def test_latents_are_kept_in_main_memory(
    backbone: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of a run does not fill the GPU that encoded its pictures."""
    brought.clear()
    encode = type(backbone).encode_image
    monkeypatch.setattr(type(backbone), "encode_image", lambda self, pixels: encode(self, pixels).as_subclass(OnGpu))
    config = run_config(training={"batch_size": 5})
    batch = Feed(Encoding(backbone, dataset), choose_pictures(dataset, backbone, config), config, CPU).batch(0)
    assert len(brought) == 5
    assert type(batch.clean) is Tensor


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from conftest import FakeBackbone
from d4k import Placement, files
from d4k.config import RunConfig, from_mapping, read_toml
from d4k.datasets import FolderDataset
from d4k.training import MSELoss, train

kill = lambda: os.kill(os.getpid(), signal.SIGKILL)

def run(recipe, moment):
    backbone = FakeBackbone()
    backbone.load(Placement(torch.device("cpu"), torch.float32))
    sync = files._sync
    files._sync = lambda path: kill() if path.match(f"*/{moment}/*") or path.name == moment else sync(path)
    on_step = lambda step, loss: moment == f"step {step}" and kill()
    config = from_mapping(RunConfig, read_toml(recipe))
    train(backbone, FolderDataset(Path(sys.argv[2])), MSELoss(), config, on_step=on_step)

undisturbed, *recipes = map(Path, sys.argv[3:])
run(undisturbed, "never")  # what is imported late is imported once, for all that are forked from here
for recipe in recipes:
    if not (child := os.fork()):
        run(recipe, recipe.stem)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, recipe
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither SIGKILL nor locks of folders")
def test_a_run_that_was_killed_goes_on_or_begins_again(
    fresh: Any, dataset: Any, photos: Path, run_config: Config, tmp_path: Path
) -> None:
    """Wherever SIGKILL hit it, it ends as one that nobody disturbed, and leaves nothing temporary.

    Without a checkpoint it is started again with the same words.
    """
    whole = fresh()
    expected = train(whole, dataset, MSELoss(), run_config("whole", training={"save_every": 2}))
    moments = ["config.toml", "step 1", "step-00000002", "step-00000004", "model"]
    recipes = {
        tmp_path / f"{moment}.toml": run_config(f"killed {moment}", training={"save_every": 2}) for moment in moments
    }
    for file, config in recipes.items():
        write_toml(config, file)
    arguments = [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(photos), *map(str, recipes)]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr

    for config in list(recipes.values())[1:]:
        folder = RunFolder(Path(config.output_dir))
        assert list(folder.path.rglob(".d4k-*"))
        resumed = fresh()
        run = train(resumed, dataset, MSELoss(), config, resume=bool(folder.states()))
        assert run.losses == expected.losses
        assert same(weights(resumed), weights(whole))
        assert [row["step"] for row in read_losses(run.output_dir)] == [1, 2, 3, 4]
        assert not list(run.output_dir.rglob(".d4k-*"))


def test_weights_of_an_interrupted_run_are_not_begun_with(
    fresh: Any, dataset: Any, run_config: Config, tmp_path: Path
) -> None:
    """Without a checkpoint no run, and no adapter, starts from what is half trained under the model's name."""
    backbone = fresh()
    with pytest.raises(Stop):
        train(backbone, dataset, MSELoss(), run_config(), on_step=stop_at(2))
    said = "those of a run that was interrupted, not those of 'fake-model': load the model again"
    with pytest.raises(ConfigError, match=said):
        train(backbone, dataset, MSELoss(), run_config(), resume=True)
    for name, sections in [("b", {}), ("c", {"adapter": {"targets": ["into"]}})]:
        with pytest.raises(ConfigError, match=said):
            train(backbone, dataset, MSELoss(), run_config(name, **sections))
        assert not (tmp_path / name).exists()
    assert train(fresh(), dataset, MSELoss(), run_config(), resume=True).steps == 4


def test_a_failure_before_the_first_step_leaves_a_model_that_can_be_trained(
    fresh: Any, dataset: Any, run_config: Config
) -> None:
    """Nothing of it has changed."""
    backbone = fresh()
    with pytest.raises(Stop):
        train(backbone, dataset, StopInside(1), run_config("a"))
    assert train(backbone, dataset, MSELoss(), run_config("b")).steps == 4


def test_a_folder_in_use_stays_refused(backbone: Any, dataset: Any, run_config: Config, photos: Path) -> None:
    """Sweeping leftovers does not empty the folders of others."""
    with pytest.raises(OutputError, match="exists and is not empty"):
        train(backbone, dataset, MSELoss(), run_config(output_dir=str(photos)))
    assert open_picture(photos / "0.png").size == (24, 20)
