"""Many pictures into one folder: what is there is kept, what is missing is generated, nothing is mixed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d4k import ConfigError, DataError, OutputError, Pipeline
from d4k.images import read_recipe, save_picture
from d4k.sampling import INDEX, Job, check_output, check_recipe, fill_jobs, generate_into, name_files, versions

SMALL: dict[str, Any] = {"width": 16, "height": 12, "steps": 2}
PROMPTS = ["a cat", "a dog", "a rocket"]


@pytest.fixture
def pipe(fake_plugin: None) -> Pipeline:
    return Pipeline.from_pretrained("fake-model", device="cpu")


def pixels(file: Path) -> Any:
    with Image.open(file) as image:
        return np.asarray(image)


def index(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / INDEX).read_text(encoding="utf-8").splitlines()]


def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    """What a launcher tells each of its processes."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))


class Stop(Exception):
    """An interruption from outside."""


def stop_after(count: int) -> Callable[[Path], None]:
    made: list[Path] = []

    def on_picture(file: Path) -> None:
        made.append(file)
        if len(made) == count:
            raise Stop

    return on_picture


class TestFolder:
    """What a batch leaves."""

    def test_every_picture_is_the_one_that_generate_returns(self, pipe: Pipeline, tmp_path: Path) -> None:
        """A job's own seed, size and negative prompt win over those of all."""
        jobs = [Job("a cat"), Job("a dog", seed=5, width=20, height=8, negative_prompt="fur")]
        files = pipe.generate_to(tmp_path / "out", jobs, seed=3, negative_prompt="dog", **SMALL)
        first = pipe.generate("a cat", seed=3, negative_prompt="dog", **SMALL)[0]
        second = pipe.generate("a dog", seed=5, negative_prompt="fur", width=20, height=8, steps=2)[0]
        assert [file.name for file in files] == ["0000-a-cat-seed3.png", "0001-a-dog-seed5.png"]
        assert np.array_equal(pixels(files[0]), np.asarray(first))
        assert np.array_equal(pixels(files[1]), np.asarray(second))
        assert read_recipe(files[1]) == second.info["d4k"]

    def test_index_has_a_line_for_each_picture(self, pipe: Pipeline, tmp_path: Path) -> None:
        """File, prompt, seed and size; the rest of the recipe below `recipe`."""
        files = pipe.generate_to(tmp_path, ["ракета", "a dog"], **SMALL)
        rows = index(tmp_path)
        assert [list(row) for row in rows] == [["file", "prompt", "seed", "width", "height", "recipe"]] * 2
        assert [(row["file"], row["prompt"]) for row in rows] == [(files[0].name, "ракета"), (files[1].name, "a dog")]
        line = rows[0]
        assert {**line.pop("recipe"), **line} == read_recipe(files[0]) | {"file": files[0].name}

    def test_files_are_named_by_number_then_id_or_prompt(self) -> None:
        """Equal prompts stay apart, and sorting by name is the order of the jobs, also beyond ten thousand."""
        jobs = [Job("a cat"), Job("a cat"), Job("a cat", id="Photo 7"), Job("猫")]
        names = [target.file.name for target in name_files(Path(), fill_jobs(jobs, seed=1))]
        assert names == [
            "0000-a-cat-seed1.png", "0001-a-cat-seed1.png", "0002-photo-7-seed1.png", "0003-image-seed1.png",
        ]  # fmt: skip
        many = [target.file.name for target in name_files(Path(), [Job("a", seed=1)] * 10_001)]
        assert many == sorted(many)

    def test_sizes_of_all_jobs_are_checked_first(self, pipe: Pipeline, tmp_path: Path) -> None:
        """The last job's mistake shows before the first picture, and no folder is made."""
        with pytest.raises(ConfigError, match="width 18 is not a multiple of 4"):
            pipe.generate_to(tmp_path / "out", [Job("a"), Job("b", width=18)], **SMALL)
        with pytest.raises(ConfigError, match="no prompt was given"):
            pipe.generate_to(tmp_path / "out", [])
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"prompt": 5}, "prompt must be a string, got 5"),
            ({"prompt": "a", "seed": -1}, "seed must be a whole number of at least 0, got -1"),
            ({"prompt": "a", "seed": 2**63}, "seed must be below 2"),
            ({"prompt": "a", "width": 0.5}, "width must be a whole number of at least 1, got 0.5"),
            ({"prompt": "a", "id": 3}, "id must be a string, got 3"),
        ],
    )
    def test_job_that_makes_no_sense(self, values: dict[str, Any], message: str) -> None:
        """Its fields are checked when it is made."""
        with pytest.raises(ConfigError, match=message):
            Job(**values)


class TestResuming:
    """Run again, a folder gets what is missing."""

    def test_interrupted_batch_ends_as_one_that_was_not(self, pipe: Pipeline, tmp_path: Path) -> None:
        """The index lists what is there, after the interruption and at the end; no picture is generated twice."""
        whole, parts, made = tmp_path / "whole", tmp_path / "parts", []
        pipe.generate_to(whole, PROMPTS, **SMALL)
        with pytest.raises(Stop):
            pipe.generate_to(parts, PROMPTS, on_picture=stop_after(2), **SMALL)
        assert index(parts) == index(whole)[:2]
        pipe.generate_to(parts, PROMPTS, on_picture=made.append, **SMALL)
        assert [file.name for file in made] == ["0002-a-rocket-seed0.png"]
        assert (parts / INDEX).read_bytes() == (whole / INDEX).read_bytes()
        assert np.array_equal(pixels(made[0]), pixels(whole / made[0].name))

    def test_index_that_an_interruption_left_behind_is_completed(self, pipe: Pipeline, tmp_path: Path) -> None:
        """Also when nothing remains to be generated."""
        pipe.generate_to(tmp_path, PROMPTS, **SMALL)
        full = (tmp_path / INDEX).read_bytes()
        (tmp_path / INDEX).write_bytes(full[: full.index(b"\n") + 1])
        pipe.generate_to(tmp_path, PROMPTS, on_picture=lambda file: pytest.fail("generated again"), **SMALL)
        assert (tmp_path / INDEX).read_bytes() == full

    def test_prompts_may_be_added_at_the_end(self, pipe: Pipeline, tmp_path: Path) -> None:
        """The first ones keep their files."""
        pipe.generate_to(tmp_path, PROMPTS[:1], **SMALL)
        made: list[Path] = []
        pipe.generate_to(tmp_path, PROMPTS, on_picture=made.append, **SMALL)
        assert len(made) == 2

    def test_changed_settings_are_refused(self, pipe: Pipeline, tmp_path: Path) -> None:
        """The picture and what changed are named; nothing is generated or overwritten."""
        pipe.generate_to(tmp_path, PROMPTS[:2], **SMALL)
        before = sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir())
        with pytest.raises(
            OutputError, match=r"0000-a-cat-seed0\.png was generated with other settings: steps was 2, is 3"
        ):
            pipe.generate_to(tmp_path, PROMPTS, **{**SMALL, "steps": 3})
        assert sorted(path.stat().st_mtime_ns for path in tmp_path.iterdir()) == before

    @pytest.mark.parametrize("changed", [["a dog", "a cat"], ["a cat"], ["a cat", "a hog"]])
    def test_other_prompts_are_refused(self, pipe: Pipeline, tmp_path: Path, changed: list[str]) -> None:
        """Another order, fewer, others: the folder would hold a mixture."""
        pipe.generate_to(tmp_path, ["a cat", "a dog"], **SMALL)
        with pytest.raises(OutputError, match=r"holds pictures that are not of these prompts and seeds, such as 000"):
            pipe.generate_to(tmp_path, changed, **SMALL)

    def test_other_versions_warn(self, pipe: Pipeline, tmp_path: Path) -> None:
        """The picture is kept, and the versions are named."""
        file = pipe.generate_to(tmp_path, ["a cat"], **SMALL)[0]
        old = read_recipe(file) | {"versions": versions() | {"torch": "0.1"}}
        save_picture(Image.open(file), file, recipe=old)
        os.utime(tmp_path / INDEX, (0, 0))  # older than the picture, which is therefore opened
        said = r"1 of the pictures that are there were generated with torch 0\.1 \(here .*\): their last bits may"
        with pytest.warns(UserWarning, match=said):
            pipe.generate_to(tmp_path, ["a cat"], **SMALL)

    def test_folder_of_something_else_is_refused(self, pipe: Pipeline, tmp_path: Path) -> None:
        """A folder in use, or a file; hidden files do not count."""
        (tmp_path / ".hidden").touch()
        check_output(tmp_path)
        (tmp_path / "mine.txt").write_text("precious")
        with pytest.raises(OutputError, match="exists and is not empty"):
            pipe.generate_to(tmp_path, ["a"], **SMALL)
        with pytest.raises(OutputError, match="is a file"):
            pipe.generate_to(tmp_path / "mine.txt", ["a"], **SMALL)

    @pytest.mark.parametrize("new", [True, False])
    def test_failure_leaves_no_folder_that_it_made(self, pipe: Pipeline, tmp_path: Path, new: bool) -> None:
        """One that was there stays."""
        folder = tmp_path / "out"
        if not new:
            folder.mkdir()

        def fail(step: Any) -> None:
            raise Stop

        with pytest.raises(Stop):
            pipe.generate_to(folder, ["a"], on_step=fail, **SMALL)
        assert folder.exists() is not new


class TestProcesses:
    """Each generates its share."""

    def test_shares_are_disjoint_and_complete(
        self, pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whichever process ends last, its index lists every picture."""
        prompts = [f"picture {i}" for i in range(5)]
        shares = []
        for rank in (1, 0):
            as_process(monkeypatch, rank, 2)
            shares.append(pipe.generate_to(tmp_path, prompts, **SMALL))
        assert [[file.name[:4] for file in share] for share in shares] == [["0001", "0003"], ["0000", "0002", "0004"]]
        assert [row["prompt"] for row in index(tmp_path)] == prompts

    def test_two_real_processes(self, tmp_path: Path) -> None:
        """Launched by torch, as accelerate does on GPUs: every picture once, one index."""
        (tmp_path / "p.txt").write_text("".join(f"picture {i}\n" for i in range(5)))
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "d4k",
            "generate", "--prompts", "p.txt", "--width", "32", "--height", "32", "--steps", "1", "--device", "cpu",
            "--output", "out",
        ]  # fmt: skip
        environment = os.environ | {"PYTHONWARNINGS": "default"}
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert result.returncode == 0, result.stderr
        names = [f"{i:04d}-picture-{i}-seed0.png" for i in range(5)]
        assert sorted(result.stdout.split()) == [f"out/{name}" for name in names]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, INDEX]
        assert [row["file"] for row in index(tmp_path / "out")] == names


def test_recipe_that_lacks_something_is_refused() -> None:
    """What is missing is named."""
    with pytest.raises(DataError, match=r"the recipe in a\.png has no seed, model"):
        check_recipe({"prompt": "a", "width": 1, "height": 1, "steps": 1, "guidance": 1}, Path("a.png"))
