"""Stages that are finished are kept until their picture is, and gone on with, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d4k import DataError, Job, OutputError, Pipeline
from d4k.images import read_recipe
from d4k.sampling import SamplingStep

STAGED: dict[str, Any] = {"stages": "8,16,32", "steps": 4, "restart": 0.8, "seed": 3}
PROMPTS = ["a cat", "a dog"]


@pytest.fixture
def pipe(fake_plugin: None) -> Pipeline:
    return Pipeline.from_pretrained("fake-model", device="cpu")


class Stop(Exception):
    """An interruption from outside."""


class Watch:
    """Notes the stage of each step, and stops before the first step of a stage, if asked to."""

    def __init__(self, stop: tuple[int, int] | None = None) -> None:
        self.stop, self.stages, self.steps = stop, list[int](), list[tuple[int, int]]()

    def __call__(self, step: SamplingStep) -> None:
        self.stages.append(step.stage)
        self.steps.append((step.step, step.steps))
        if self.stop == (self.stages.count(1), step.stage):
            raise Stop


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones as well."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_picture_leaves_no_stages(pipe: Pipeline, tmp_path: Path) -> None:
    """In a folder and beside a file; a stage is there while its picture is made."""
    seen = set()

    def look(step: SamplingStep) -> None:
        seen.update(path.name for path in tmp_path.rglob("*.png"))

    files = pipe.generate_to(tmp_path / "out", PROMPTS, on_step=look, **STAGED)
    pipe.generate_to(tmp_path / "b.png", ["a cat"], on_step=look, **STAGED)
    assert {".0001-a-dog-seed3.png.8x8.png", ".0001-a-dog-seed3.png.16x16.png", ".b.png.8x8.png"} <= seen
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "b.png", "index.jsonl", *(f.name for f in files)}


@pytest.mark.parametrize("output", ["out", "a.png"])
@pytest.mark.parametrize(("stage", "after"), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3])])
def test_interrupted_picture_goes_on_with_its_finished_stages(
    pipe: Pipeline, tmp_path: Path, output: str, stage: int, after: list[int]
) -> None:
    """Nothing of a finished stage is sampled again, and all files are those of a run that was not interrupted."""
    jobs = PROMPTS[: 2 if output == "out" else 1]
    pipe.generate_to(tmp_path / "whole" / output, jobs, **STAGED)
    with pytest.raises(Stop):
        pipe.generate_to(tmp_path / "parts" / output, jobs, on_step=Watch((4, stage)), **STAGED)
    watch = Watch()
    pipe.generate_to(tmp_path / "parts" / output, jobs, on_step=watch, **STAGED)
    assert [stage for stage, _ in groupby(watch.stages)] == after + [1, 2, 3] * (len(jobs) - 1)
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_steps_that_are_told_count_those_of_finished_stages(pipe: Pipeline, tmp_path: Path) -> None:
    """So that a bar goes on where it ended."""
    with pytest.raises(Stop):
        pipe.generate_to(tmp_path / "out", ["a"], on_step=Watch((4, 2)), **STAGED)
    watch = Watch()
    pipe.generate_to(tmp_path / "out", ["a"], on_step=watch, **STAGED)
    total = watch.steps[0][1]
    assert watch.steps == [(number, total) for number in range(5, total + 1)]


def test_stage_is_the_picture_that_its_own_recipe_makes(pipe: Pipeline, tmp_path: Path) -> None:
    """Kept stages are pictures like others."""
    pipe.generate_to(tmp_path / "out", ["a cat"], keep_stages=True, **STAGED)
    kept = sorted((tmp_path / "out" / "stages" / "0000-a-cat-seed3").iterdir())
    assert [file.name for file in kept] == ["16x16.png", "8x8.png"]
    pipe.generate_to(tmp_path / "16x16.png", ["a cat"], **{**STAGED, "stages": "8,16"})
    pipe.generate_to(tmp_path / "8x8.png", ["a cat"], width=8, height=8, steps=4, seed=3)
    assert [file.read_bytes() for file in kept] == [(tmp_path / file.name).read_bytes() for file in kept]


def test_kept_stages_of_a_file_lie_beside_it(pipe: Pipeline, tmp_path: Path) -> None:
    """Also those that a run without `keep_stages` had finished."""
    with pytest.raises(Stop):
        pipe.generate_to(tmp_path / "a.jpg", ["a"], on_step=Watch((4, 3)), **STAGED)
    watch = Watch()
    pipe.generate_to(tmp_path / "a.jpg", ["a"], keep_stages=True, on_step=watch, **STAGED)
    assert set(watch.stages) == {3}
    assert set(everything(tmp_path)) == {"a.jpg", "a-stages/8x8.png", "a-stages/16x16.png"}


def test_stages_that_were_kept_are_gone_on_with_and_stay(pipe: Pipeline, tmp_path: Path) -> None:
    """A picture that was taken away is made again from its last stage."""
    file = pipe.generate_to(tmp_path, ["a"], keep_stages=True, **STAGED)[0]
    before = everything(tmp_path)
    file.unlink()
    watch = Watch()
    pipe.generate_to(tmp_path, ["a"], on_step=watch, **STAGED)
    assert set(watch.stages) == {3}
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"guidance": 1.0}, "guidance was 2.0, is 1.0"),
        ({"jobs": ["a CAT"]}, "prompt was 'a cat', is 'a CAT'"),
        ({"steps": 5}, "steps was 4, is 5"),
    ],
)
def test_stage_of_other_settings_is_sampled_again(
    pipe: Pipeline, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    """The picture is the one of the new settings, and a line says why."""
    with pytest.raises(Stop):
        pipe.generate_to(tmp_path / "out", ["a cat"], on_step=Watch((4, 2)), **STAGED)
    given = {"jobs": ["a cat"], **STAGED, **changed}
    with pytest.warns(UserWarning, match=f"8x8.png was sampled with other settings: {said}; the stage is sampled ag"):
        file = pipe.generate_to(tmp_path / "out", **given)[0]
    assert file.read_bytes() == pipe.generate_to(tmp_path / "new.png", **given)[0].read_bytes()
    assert len(everything(tmp_path / "out")) == 2


def test_settings_of_the_last_stage_alone_leave_the_earlier_ones_good(pipe: Pipeline, tmp_path: Path) -> None:
    """They did not make them."""
    with pytest.raises(Stop):
        pipe.generate_to(tmp_path / "a.png", ["a"], on_step=Watch((4, 3)), **STAGED)
    watch = Watch()
    pipe.generate_to(tmp_path / "a.png", ["a"], on_step=watch, **{**STAGED, "restart": [0.8, 0.5]})
    assert set(watch.stages) == {3}


def test_finished_picture_of_other_stages_says_what_differs(pipe: Pipeline, tmp_path: Path) -> None:
    """Their sizes, or else the settings of the first that differs."""
    pipe.generate_to(tmp_path, ["a cat"], **STAGED)
    with pytest.raises(OutputError, match="settings: stages before it was 8x8, 16x16, is 16x16; name another"):
        pipe.generate_to(tmp_path, ["a cat"], **{**STAGED, "stages": "16,32"})
    with pytest.raises(OutputError, match="settings: stage 16x16: steps was 4, is 3; name another"):
        pipe.generate_to(tmp_path, ["a cat"], **{**STAGED, "steps": [4, 3, 4]})


def test_damaged_stage_is_sampled_again(pipe: Pipeline, tmp_path: Path) -> None:
    """With a line that names it; the one before it is good."""
    with pytest.raises(Stop):
        pipe.generate_to(tmp_path / "a.png", ["a"], on_step=Watch((4, 3)), **STAGED)
    (tmp_path / ".a.png.16x16.png").write_bytes(b"garbage")
    watch = Watch()
    with pytest.warns(UserWarning, match=r"\.a\.png\.16x16\.png cannot be read .*; the stage is sampled again"):
        pipe.generate_to(tmp_path / "a.png", ["a"], on_step=watch, **STAGED)
    assert set(watch.stages) == {2, 3}


def test_stages_of_a_finished_picture_are_cleared_away_and_those_of_others_named(
    pipe: Pipeline, tmp_path: Path
) -> None:
    """A command that was killed after a picture and before its stages were removed leaves nothing for good."""
    pipe.generate_to(tmp_path, ["a"], **STAGED)
    Image.new("RGB", (1, 1)).save(tmp_path / ".0000-a-seed3.png.8x8.png")
    Image.new("RGB", (1, 1)).save(tmp_path / ".0001-old-seed3.png.8x8.png")
    with pytest.warns(UserWarning, match=r"not of these prompts and seeds, such as \.0001-old-seed3\.png\.8x8\.png"):
        pipe.generate_to(tmp_path, ["a"], **STAGED)
    assert set(everything(tmp_path)) == {"0000-a-seed3.png", "index.jsonl", ".0001-old-seed3.png.8x8.png"}


def test_asking_to_keep_stages_of_pictures_without_any_warns(pipe: Pipeline, tmp_path: Path) -> None:
    """The picture is made."""
    with pytest.warns(UserWarning, match="no stage is kept: each picture is sampled in one"):
        pipe.generate_to(tmp_path / "a.png", ["a"], keep_stages=True, width=8, height=8)
    assert (tmp_path / "a.png").exists()


def test_file_in_the_place_of_the_stages_is_refused_before_anything_is_sampled(pipe: Pipeline, tmp_path: Path) -> None:
    """Not after the first stage, which may take an hour."""
    (tmp_path / "a-stages").touch()
    with pytest.raises(OutputError, match="a-stages is a file"):
        pipe.generate_to(
            tmp_path / "a.png", ["a"], keep_stages=True, on_step=lambda step: pytest.fail("sampled"), **STAGED
        )


def test_name_that_leaves_no_room_for_more_is_cut(pipe: Pipeline, tmp_path: Path) -> None:
    """A file system allows 255 bytes."""
    file = tmp_path / f"{'x' * 230}.png"
    with pytest.raises(Stop):
        pipe.generate_to(file, ["a"], on_step=Watch((4, 3)), **STAGED)
    watch = Watch()
    pipe.generate_to(file, ["a"], on_step=watch, **STAGED)
    assert set(watch.stages) == {3}
    assert list(everything(tmp_path)) == [file.name]


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import FakePlugin, Point
from d4k.plugins import discovery
discovery.entry_points = lambda group: [Point("fake", FakePlugin)]
from d4k import Pipeline

def told(step):
    print(step.stage, flush=True)
    if step.stage == 3:
        sys.stdin.readline()

pipe = Pipeline.from_pretrained("fake-model", device="cpu")
pipe.generate_to(Path(sys.argv[1]), ["a cat"], on_step=told, **{given!r})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_process_leaves_its_stages_to_the_next_one(pipe: Pipeline, tmp_path: Path) -> None:
    """A real kill in the third stage."""
    code = CHILD.format(tests=str(Path(__file__).parents[1]), given=STAGED)
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "parts")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "D4K_PLUGINS": "fake"},
    )  # fmt: skip
    assert child.stdout is not None
    lines = iter(child.stdout.readline, "")
    assert "3\n" in lines, child.communicate()[1]
    child.kill()
    child.communicate()
    watch = Watch()
    pipe.generate_to(tmp_path / "parts", ["a cat"], on_step=watch, **STAGED)
    pipe.generate_to(tmp_path / "whole", ["a cat"], **STAGED)
    assert set(watch.stages) == {3}
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_pictures_go_on_from_an_image_in_stages(pipe: Pipeline, photos: Path, tmp_path: Path) -> None:
    """The first stage begins with it; its path and content are in the recipe; an interruption changes nothing."""
    jobs = [Job("a", image=photos / "0.png")]
    given = {"stages": "auto", "width": 48, "height": 40, "steps": 4, "restart": 0.6, "seed": 0}
    whole = pipe.generate_to(tmp_path / "whole.png", jobs, **given)[0]
    recipe = read_recipe(whole)
    assert recipe["image"] == str(photos / "0.png")
    assert len(recipe["image_sha256"]) == 64
    assert recipe["restart"] == 0.6
    jobs, larger = [Job("a", image=photos / "0.png")], {**given, "stages": "24,48"}
    for stop in (1, 2):
        out = tmp_path / f"{stop}.png"
        with pytest.raises(Stop):
            pipe.generate_to(out, jobs, on_step=stopping(stop), **larger)
        pipe.generate_to(out, jobs, **larger)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert whole.read_bytes() != (tmp_path / "1.png").read_bytes()


def stopping(stage: int) -> Callable[[SamplingStep], None]:
    """Stops in the first step of a stage."""

    def told(step: SamplingStep) -> None:
        if step.stage == stage:
            raise Stop

    return told


@pytest.mark.parametrize("stages", [16, [8, 16], [[8, 8], [16, 16]], [(8, 8), "16x16"]])
def test_stages_of_every_kind_are_those_of_pictures_in_memory(pipe: Pipeline, tmp_path: Path, stages: Any) -> None:
    """A number, and a list of numbers, of sizes and of words."""
    (file,) = pipe.generate_to(tmp_path / "a.png", ["a"], stages=stages, steps=2)
    (picture,) = pipe.generate("a", stages=stages, steps=2)
    with Image.open(file) as written:
        assert written.tobytes() == picture.tobytes()


def test_a_picture_whose_name_begins_alike_keeps_its_stages(pipe: Pipeline, tmp_path: Path) -> None:
    """Only the stages of a picture itself are cleared away with it."""
    with pytest.raises(Stop):
        pipe.generate_to(tmp_path / "a.png.b.png", ["a"], on_step=stopping(2), **STAGED)
    other = tmp_path / ".a.png.b.png.8x8.png"
    assert other.exists()
    pipe.generate_to(tmp_path / "a.png", ["a"], **STAGED)
    assert other.exists()


def test_a_picture_that_changes_while_it_is_to_be_begun_with_is_refused(
    pipe: Pipeline, photos: Path, tmp_path: Path
) -> None:
    """Its recipe would name another one."""
    jobs = [Job("a", image=photos / "0.png"), Job("b", image=photos / "0.png")]

    def change(file: Path) -> None:
        (photos / "1.png").replace(photos / "0.png")

    with pytest.raises(DataError, match=r"0\.png has changed since this command began; run it again"):
        pipe.generate_to(tmp_path / "out", jobs, steps=2, width=16, height=16, on_picture=change)
