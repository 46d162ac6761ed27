"""Trackers: told of every step and every validation, never of a secret, and never in the way of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, TensorBoardTracker, register_tracker_class
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d4k.datasets import FolderDataset
from d4k.errors import ConfigError, D4KError, OutputError, UnknownNameError
from d4k.models import Model, ModelRef, RunFolder
from d4k.training import MSELoss, journal, train, train_from_config
from d4k.training.tracking import Tracking, check_tracking, plain_settings

Config = Callable[..., Any]
KNOWN = Model(ModelRef("fake-model"), "fake", "fake-model")
TOKEN = "hf_" + "aB3" * 12

pytestmark = pytest.mark.usefixtures("fake_plugin")


class Notebook(GeneralTracker):
    """A tracker that remembers; what it is told to fail at, it fails at."""

    name = "notebook"
    requires_logging_directory = False
    runs: ClassVar[list[Any]] = []
    fails: ClassVar[set[str]] = set()

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.project, self.options, self.said = project, options, []  # type: ignore[var-annotated]
        type(self).runs.append(self)

    @property
    def tracker(self) -> Any:
        return self

    def _do(self, what: str, *said: Any) -> None:
        if what in self.fails:
            raise OSError(f"no route to https://me:{'pass' + 'word'}@host, with {TOKEN}")
        self.said.append((what, *said))

    def start(self) -> None:
        self._do("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._do("settings", values)

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._do("log", step, values)

    def log_images(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._do("images", step, {name: images.shape for name, images in values.items()})

    def finish(self) -> None:
        self._do("finish")


class Diary(TensorBoardTracker):
    """Accelerate's own TensorBoard tracker under another name: one that keeps files."""

    name = "diary"

    def log_images(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        super().log_images(values, step, dataformats="NHWC")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Both trackers are known to accelerate for the time of a test."""
    PartialState()
    Notebook.runs, Notebook.fails = [], set()
    before = dict(LOGGER_TYPE_TO_CLASS)
    for each in (Notebook, Diary):
        register_tracker_class(each)
    yield
    LOGGER_TYPE_TO_CLASS.clear()
    LOGGER_TYPE_TO_CLASS.update(before)


@pytest.fixture
def dataset(photos: Path) -> FolderDataset:
    """Five captioned pictures."""
    return FolderDataset(photos)


def run_of(config: Any) -> RunFolder:
    return RunFolder(Path(config.output_dir))


def test_trackers_hear_of_every_step_and_validation(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Settings first, then the figures of each step and the pictures of each validation, then the end."""
    looks = {"every": 2, "prompts": ["a cat"], "steps": 1, "holdout": 1, "sigmas": [0.5]}
    config = run_config(validation=looks, tracking={"trackers": ["notebook"], "project": "cats"})
    run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
    (book,) = Notebook.runs
    assert (book.project, book.said[0], book.said[-1]) == ("cats", ("start",), ("finish",))
    assert book.said[1] == ("settings", plain_settings(config))
    logged = [(step, values) for what, step, values in (s for s in book.said if s[0] == "log")]
    assert [(step, values["loss"]) for step, values in logged if "loss" in values] == list(enumerate(run.losses, 1))
    assert [step for step, values in logged if "validation/loss at sigma 0.5" in values] == [0, 2, 4]
    images = [(step, *shapes) for _, step, shapes in (s for s in book.said if s[0] == "images")]
    assert [one for one in images if one[1] == "validation/0000-a-cat-seed0"] == [
        (step, "validation/0000-a-cat-seed0") for step in (0, 2, 4)
    ]


def test_a_tracker_of_accelerate_writes_into_the_folder_of_the_run(
    backbone: Any, dataset: Any, run_config: Config
) -> None:
    """What accelerate's TensorBoard tracker wrote is read back."""
    looks = {"every": 4, "prompts": ["a cat"], "steps": 1}
    config = run_config(tracking={"trackers": ["diary"]}, validation=looks)
    run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
    events = EventAccumulator(str(run_of(config).tracking / "d4k")).Reload()
    assert [one.value for one in events.Scalars("loss")] == pytest.approx(run.losses)
    assert [one.step for one in events.Images("validation/0000-a-cat-seed0")] == [0, 4]


@pytest.mark.parametrize("what", ["log", "images", "finish"])
def test_a_tracker_that_fails_is_left_out_with_one_warning(
    backbone: Any, dataset: Any, run_config: Config, what: str
) -> None:
    """Training goes on as without it, and the warning tells no secret."""
    Notebook.fails = {what}
    looks = {"every": 2, "prompts": ["a cat"], "steps": 1}
    config = run_config(tracking={"trackers": ["notebook", "diary"]}, validation=looks)
    with pytest.warns(UserWarning, match="tracker 'notebook' failed: OSError") as caught:
        run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
    (told,) = [str(each.message) for each in caught if "notebook" in str(each.message)]
    assert TOKEN not in told
    assert "password" not in told
    assert len(run.losses) == 4
    events = EventAccumulator(str(run_of(config).tracking / "d4k")).Reload()
    assert len(events.Scalars("loss")) == 4


def test_a_tracker_that_cannot_start_ends_the_run_before_its_first_step(
    backbone: Any, dataset: Any, run_config: Config
) -> None:
    """In one sentence, without what must not be told."""
    Notebook.fails = {"start"}
    seen: list[int] = []
    config = run_config(tracking={"trackers": ["notebook"]})
    with pytest.raises(D4KError, match="tracker 'notebook' cannot start") as caught:
        train(backbone, dataset, MSELoss(), config, model=KNOWN, on_step=lambda step, loss: seen.append(step))
    assert (seen, TOKEN in str(caught.value)) == ([], False)


def test_a_tracker_is_ended_where_the_journal_cannot_begin(
    backbone: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk; it would wait for the run otherwise, until the process ends."""

    def full(path: Path, text: str) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(journal, "write_text", full)
    with pytest.raises(OutputError, match=r"losses\.jsonl: No space left"):
        train(backbone, dataset, MSELoss(), run_config(tracking={"trackers": ["notebook"]}))
    assert Notebook.runs[-1].said[-1] == ("finish",)


def test_trackers_that_cannot_work_are_refused_before_loading(run_config: Config) -> None:
    """Unknown, not installed, or there anyway; none of the names of the run exists."""
    sections = {"model": "no-model", "dataset": {"name": "no-dataset"}}
    with pytest.raises(UnknownNameError, match="unknown tracker 'wanbd'; did you mean 'wandb'"):
        train_from_config(run_config(tracking={"trackers": ["wanbd"]}, **sections))
    with pytest.raises(ConfigError, match="TensorBoard's file is always written"):
        train_from_config(run_config(tracking={"trackers": ["tensorboard"]}, **sections))
    with pytest.raises(ConfigError, match="'dvclive' needs a package that is not installed; pip install dvclive"):
        train_from_config(run_config(tracking={"trackers": ["dvclive"]}, **sections))


@pytest.mark.parametrize(
    "value", [TOKEN, "https://me:swordfish@example.com/data", "prefix-0123456789abcdef"], ids=["hub", "address", "own"]
)
def test_a_secret_in_the_settings_is_refused(run_config: Config, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """It would be in config.toml for good: a token of the Hub, a password in an address, one of the environment."""
    monkeypatch.setenv("SERVICE_API_KEY", "0123456789abcdef")
    config = run_config(dataset={"name": "folder", "options": {"sources": ["a", {"from": value}]}})
    with pytest.raises(ConfigError, match=r"dataset\.options\.sources\.1\.from holds a token or a password") as caught:
        check_tracking(config)
    assert value not in str(caught.value)
    told = plain_settings(config)["dataset.options.sources.1.from"]
    assert "***" in told
    assert all(secret not in told for secret in (TOKEN, "swordfish", "0123456789abcdef"))


def test_options_named_like_secrets_are_masked(run_config: Config) -> None:
    """By the end of their name; a number of tokens is none."""
    options = {"api_key": "k", "hub_token": "t", "password": "p", "keys": ["k"], "tokens": 3, "monkey": "m"}
    told = plain_settings(run_config(dataset={"name": "folder", "options": options}, backbone={"text_tokens": 77}))
    values = {name[16:]: value for name, value in told.items() if name.startswith("dataset.options.")}
    masked = {name: value for name, value in values.items() if value == "***"}
    assert list(masked) == ["api_key", "hub_token", "password", "keys.0"]
    assert values == masked | {"tokens": 3, "monkey": "m"}
    assert told["backbone.text_tokens"] == 77
    assert all(isinstance(value, bool | int | float | str) for value in told.values())


@pytest.mark.parametrize(
    ("name", "told"),
    [("wandb", ["name", "dir"]), ("trackio", ["name", "resume"]), ("mlflow", ["run_name"]), ("aim", [])],
)
def test_each_tracker_is_told_the_name_of_the_run_in_its_words(
    run_config: Config, monkeypatch: pytest.MonkeyPatch, name: str, told: list[str]
) -> None:
    """As the class of that name takes it."""
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, name, Notebook)
    config = run_config("first", tracking={"trackers": [name], "name": "my run"})
    Tracking(config, run_of(config)).finish()
    (book,) = Notebook.runs
    assert list(book.options) == told
    assert not told or book.options[told[0]] == "my run"
