"""Which folders a run begins in, goes on in, or leaves alone; which of its settings may change meanwhile."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from click.testing import CliRunner
from filelock import FileLock

from d4k import Pipeline
from d4k.cli import main
from d4k.config import RunConfig, ValidationSettings, from_mapping, read_toml, write_toml
from d4k.datasets import FolderDataset
from d4k.errors import CheckpointError, ConfigError, DataError, OutputError
from d4k.models import RunFolder
from d4k.training import MSELoss, read_losses, train
from d4k.training.folder import FREE, changes
from d4k.training.lock import LOCK

Config = Callable[..., Any]


class Stop(Exception):
    """An interruption from outside."""


def stop_at(last: int) -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        if step == last:
            raise Stop

    return on_step


def begun(backbone: Any, dataset: Any, config: RunConfig, step: int = 2) -> RunFolder:
    """The folder of a run that stopped."""
    with pytest.raises(Stop):
        train(backbone, dataset, MSELoss(), config, on_step=stop_at(step))
    return RunFolder(Path(config.output_dir))


def test_a_run_without_a_checkpoint_is_started_again_with_the_same_words(
    fresh: Any, dataset: Any, run_config: Config, same_weights: Any
) -> None:
    """It ends as one that nobody disturbed; what may change on resuming may change here as well."""
    whole, again = fresh(), fresh()
    expected = train(whole, dataset, MSELoss(), run_config("whole"))
    begun(fresh(), dataset, run_config(training={"save_every": 3}))
    run = train(again, dataset, MSELoss(), run_config())
    assert run.losses == expected.losses
    assert same_weights(again, whole)
    assert [row["step"] for row in read_losses(run.output_dir)] == [1, 2, 3, 4]
    assert read_toml(run.output_dir / "config.toml")["training"]["save_every"] == 0


def test_a_bad_picture_does_not_spoil_the_folder(
    fresh: Any, dataset: Any, run_config: Config, photos: Path, tmp_path: Path
) -> None:
    """Once it is mended, the same command begins anew."""
    whole = (photos / "3.png").read_bytes()
    (photos / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError):
        train(fresh(), dataset, MSELoss(), run_config())
    (photos / "3.png").write_bytes(whole)
    assert train(fresh(), dataset, MSELoss(), run_config()).steps == 4


def test_a_run_with_a_checkpoint_is_not_begun_again(fresh: Any, dataset: Any, run_config: Config) -> None:
    """The message says how to go on, and how to begin elsewhere."""
    run = begun(fresh(), dataset, run_config(training={"save_every": 2}), 3)
    before = sorted(run.path.rglob("*"))
    with pytest.raises(OutputError, match=r"holds a run that has done 2 steps: go on with --resume, or name another"):
        train(fresh(), dataset, MSELoss(), run_config(training={"save_every": 2}))
    assert sorted(run.path.rglob("*")) == before


def test_another_run_is_not_overwritten(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Although it has no checkpoint; what differs is named."""
    run = begun(fresh(), dataset, run_config())
    before = run.losses.read_text()
    with pytest.raises(OutputError, match=r"holds another run, which differs in optimizer\.lr, seed: name another"):
        train(fresh(), dataset, MSELoss(), run_config(seed=3, optimizer={"lr": 1e-3}))
    assert run.losses.read_text() == before


def test_a_finished_run_that_lost_its_checkpoints_is_not_overwritten(
    fresh: Any, dataset: Any, run_config: Config
) -> None:
    """Its model is worth more than the space."""
    run = RunFolder(train(fresh(), dataset, MSELoss(), run_config()).output_dir)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(OutputError, match="holds a finished run without its checkpoints"):
        train(fresh(), dataset, MSELoss(), run_config())
    assert run.model.is_dir()


@pytest.mark.parametrize("name", ["thesis.txt", "config.toml"])
def test_a_folder_with_other_things_is_refused(backbone: Any, dataset: Any, run_config: Config, name: str) -> None:
    """Also where one of them is called as a file of a run."""
    folder = Path(run_config().output_dir)
    folder.mkdir()
    (folder / name).write_text("precious = 1")
    with pytest.raises(OutputError, match="exists and is not empty"):
        train(backbone, dataset, MSELoss(), run_config())
    assert [path.name for path in folder.iterdir()] == [name]


def test_a_run_is_known_however_its_path_is_written(
    fresh: Any, dataset: Any, run_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_weights: Any
) -> None:
    """`./k` for `k`, from another folder, and moved; its record then says where it is."""
    whole, parts = fresh(), fresh()
    settings: dict[str, Any] = {"training": {"steps": 5, "save_every": 1}}
    expected = train(whole, dataset, MSELoss(), run_config("whole", **settings))
    monkeypatch.chdir(tmp_path)
    config = run_config(output_dir="k", **settings)
    begun(fresh(), dataset, config, 1)
    with pytest.raises(Stop):
        train(fresh(), dataset, MSELoss(), evolve(config, output_dir="./k"), resume=True, on_step=stop_at(2))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(Stop):
        train(fresh(), dataset, MSELoss(), evolve(config, output_dir="../k"), resume=True, on_step=stop_at(3))
    (tmp_path / "k").rename(tmp_path / "moved")
    moved = evolve(config, output_dir=str(tmp_path / "moved"))
    run = train(parts, dataset, MSELoss(), moved, resume=True)
    assert run.losses == expected.losses
    assert same_weights(parts, whole)
    assert read_toml(run.output_dir / "config.toml")["output_dir"] == str(tmp_path / "moved")


def test_the_same_pictures_may_be_named_otherwise(
    tmp_path: Path, photos: Path, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path and a whole one, of one folder."""
    monkeypatch.chdir(tmp_path)
    one, two, other = (
        run_config(dataset={"name": "folder", "options": {"path": path}})
        for path in ("photos", str(photos), str(tmp_path))
    )
    assert changes(one, two) == []
    assert changes(one, other) == ["dataset.options.path"]


def change_caption(photos: Path) -> None:
    (photos / "2.txt").write_text("another picture")


def add_picture(photos: Path) -> None:
    shutil.copy(photos / "0.png", photos / "9.png")
    (photos / "9.txt").write_text("one more")


def change_pixels(photos: Path) -> None:
    shutil.copy(photos / "0.png", photos / "3.png")


@pytest.mark.parametrize("change", [change_caption, add_picture, change_pixels])
def test_a_dataset_that_changed_is_refused(
    fresh: Any, run_config: Config, photos: Path, change: Callable[[Path], None]
) -> None:
    """Rather than to go on with other pictures under the old order; with a cache, also new pixels under an old name."""
    config = cached(run_config, training={"save_every": 1})
    begun(fresh(), FolderDataset(photos), config)
    before = {file: file.read_bytes() for file in photos.iterdir()}
    change(photos)
    with pytest.raises(ConfigError, match="the dataset is not the one of the first 2 steps: pictures or captions"):
        train(fresh(), FolderDataset(photos), MSELoss(), config, resume=True)
    for file in photos.iterdir():
        if file in before:
            file.write_bytes(before[file])
        else:
            file.unlink()
    assert train(fresh(), FolderDataset(photos), MSELoss(), config, resume=True).steps == 4


def cached(run_config: Config, **sections: Any) -> RunConfig:
    """Settings of a run with a cache."""
    config: RunConfig = run_config(**{**sections, "data": {"cache": "auto", **sections.get("data", {})}})
    return config


NEW: dict[str, dict[str, Any]] = {
    "training.steps": {"training": {"steps": 9}},
    "training.save_every": {"training": {"save_every": 7}},
    "training.keep_last": {"training": {"keep_last": 7}},
    "training.keep_every": {"training": {"keep_every": 7}},
    "training.max_skipped": {"training": {"max_skipped": 7}},
    "output_dir": {"output_dir": "elsewhere"},
    "data.cache": {"data": {"cache": "elsewhere"}},
    "data.workers": {"data": {"workers": 7}},
    "tracking": {"tracking": {"project": "other", "trackers": ["wandb"]}},
    "validation": {"validation": {"every": 7, "prompts": ["a cat"]}},
}


@pytest.mark.parametrize("key", FREE)
def test_what_changes_no_result_may_change(run_config: Config, key: str) -> None:
    before, after = cached(run_config), cached(run_config, **NEW[key])
    assert before != after
    assert changes(before, after) == changes(after, before) == []


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"seed": 1}, "seed"),
        ({"training": {"batch_size": 7}}, "training.batch_size"),
        ({"training": {"precision": "bf16"}}, "training.precision"),
        ({"data": {"cache": "off"}}, "data.cache"),
        ({"data": {"crop": "random"}}, "data.crop"),
        ({"validation": {"holdout": 2}}, "validation.holdout"),
        ({"ema": {}}, "ema.decay"),
        ({"adapter": {}}, "adapter.rank"),
        ({"loss": {"name": "mse", "options": {"x": 1}}}, "loss.options.x"),
        ({"flow": {"shift": 3.0}}, "flow.shift"),
        ({"schedule": {"name": "linear"}}, "schedule.name"),
    ],
)
def test_whatever_else_differs_is_named(run_config: Config, sections: Any, key: str) -> None:
    """Either way round."""
    before, after = cached(run_config), cached(run_config, **sections)
    assert key in changes(before, after)
    assert key in changes(after, before)


def test_the_seed_of_validation_stays_where_it_decides_what_is_held_out(run_config: Config) -> None:
    """Pictures that were held out would be trained on; the digest of the dataset would tell, in words of no help."""
    for holdout, named in ((0, []), (2, ["validation.seed"])):
        one, other = (run_config(validation={"holdout": holdout, "prompts": ["a"], "seed": seed}) for seed in (1, 2))
        assert changes(one, other) == named


def test_a_setting_that_an_older_version_did_not_know_is_its_default(
    fresh: Any, dataset: Any, run_config: Config
) -> None:
    """Its configuration has fewer keys."""
    run = begun(fresh(), dataset, run_config(training={"save_every": 1}))
    kept = read_toml(run.config)
    del kept["tracking"], kept["training"]["max_skipped"], kept["data"]["posterior"]
    older = from_mapping(RunConfig, kept)
    assert changes(older, run_config()) == []
    assert changes(older, evolve(run_config(), validation=ValidationSettings())) == []


def test_a_second_run_beside_a_living_one_is_refused(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Whether it would resume or begin; the first is not disturbed, and its lock goes with it."""
    config = run_config(training={"save_every": 1})
    refused: list[str] = []

    def another(step: int, loss: float) -> None:
        for resume in (step > 1, False):
            with pytest.raises(OutputError, match="another d4k train is running in .*run: wait until it ends") as said:
                train(fresh(), dataset, MSELoss(), config, resume=resume)
            refused.append(str(said.value))

    before = fresh()
    run = train(before, dataset, MSELoss(), config, on_step=another)
    assert len(refused) == 8
    assert [row["step"] for row in read_losses(run.output_dir)] == [1, 2, 3, 4]
    assert not (run.output_dir / LOCK).exists()
    assert train(before, dataset, MSELoss(), config, resume=True).losses == run.losses


HOLDER = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_process_that_was_killed_is_gone(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Its file may stay, and hinders nobody; the command refuses a living one before it loads a model."""
    config = run_config(training={"save_every": 1})
    run = begun(fresh(), dataset, config)
    command = [sys.executable, "-c", HOLDER, str(run.path / LOCK)]
    recipe = run.path.parent / "run.toml"
    write_toml(evolve(config, model="nowhere"), recipe)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(OutputError, match="another d4k train is running"):
            train(fresh(), dataset, MSELoss(), config, resume=True)
        write_toml(evolve(config, model="nowhere"), run.config)
        result = CliRunner().invoke(main, ["train", str(recipe), "--resume"])
        assert (result.exit_code, "another d4k train is running" in result.output) == (2, True)
        process.kill()
    write_toml(config, run.config)
    assert (run.path / LOCK).exists()
    assert train(fresh(), dataset, MSELoss(), config, resume=True).steps == 4
    assert not (run.path / LOCK).exists()


def descriptors(folder: Path) -> list[str]:
    """Files below a folder that this process has open, where the system tells."""
    opened = (str(entry.readlink()) for entry in Path("/proc/self/fd").glob("*") if entry.is_symlink())
    return [path for path in opened if path.startswith(str(folder))]


def test_an_error_lets_the_folder_go(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Lock, module and mode are as before; the journal is closed, and the same session can go on."""
    backbone, config = fresh(), run_config(training={"save_every": 1})
    module = backbone.trainable
    begun(backbone, dataset, config)
    assert backbone.trainable is module
    assert module.training is False
    assert not list(Path(config.output_dir).glob(".d4k*"))
    with FileLock(Path(config.output_dir) / LOCK).acquire(blocking=False):
        pass
    (Path(config.output_dir) / LOCK).unlink(missing_ok=True)
    assert descriptors(Path(config.output_dir)) == []
    assert train(backbone, dataset, MSELoss(), config, resume=True).steps == 4


def test_options_that_a_run_recorded_do_not_forbid_to_resume_it(tmp_path: Path) -> None:
    """A finished run adds what it trained with to the options of the model in memory; the next part goes on with it."""
    pipe = Pipeline.from_pretrained("tiny-sd3", device="cpu", downscale=16)
    settings: dict[str, Any] = {"dataset": "sample-photos", "dataset_options": {"names": ["coffee"]}, "width": 64}
    settings |= {"height": 64, "shift": 2.5, "output_dir": tmp_path / "run", "cache": "off", "workers": 0}
    first = pipe.train(**settings, steps=1)
    second = pipe.train(**settings, steps=2, resume=True)
    third = pipe.train(**settings, steps=3, resume=True)
    assert third.losses[:2] == second.losses
    assert second.losses[:1] == first.losses


def test_a_finished_run_whose_checkpoints_are_gone_is_not_done_again_in_its_place(
    fresh: Any, dataset: Any, run_config: Config
) -> None:
    run = train(fresh(), dataset, MSELoss(), run_config())
    shutil.rmtree(run.output_dir / "checkpoints")
    before = sorted(run.output_dir.rglob("*"))
    with pytest.raises(CheckpointError, match="finished run without its checkpoints. Put them back"):
        train(fresh(), dataset, MSELoss(), run_config(), resume=True)
    assert sorted(run.output_dir.rglob("*")) == before


def test_a_newer_checkpoint_without_its_record_is_named(fresh: Any, dataset: Any, run_config: Config) -> None:
    """The run goes on from the one before, and says so."""
    config = run_config(training={"save_every": 1})
    run = begun(fresh(), dataset, config, step=3)
    newest, before = run.states()[-1], run.states()[-2]
    (newest / "state.json").unlink()
    with pytest.warns(UserWarning, match=rf"{newest.name} is not used: .* goes on at {before.name}"):
        train(fresh(), dataset, MSELoss(), config, resume=True)
