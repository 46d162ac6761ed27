"""Many pictures into one folder: what is there is kept, what is missing is generated, nothing is mixed."""

from __future__ import annotations

import errno
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
            ({"prompt": "a", "seed": 2**63}, "seed must be .*below 2"),
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


FAKE = {"model": "fake", "width": 8, "height": 8, "steps": 2, "negative_prompt": "", "options": {"size": (1, 2)}}


def recipe(job: Job, **changed: Any) -> dict[str, Any]:
    return {"prompt": job.prompt, "seed": job.seed, **FAKE, "versions": versions(), **changed}


def black(settings: Any, tick: Any) -> Image.Image:
    return Image.new("RGB", (8, 8))


def jobs(count: int) -> list[Job]:
    return [Job(f"picture {number}", seed=0) for number in range(count)]


CHILD = """
import sys
from pathlib import Path
from PIL import Image
from d4k import D4KError
from d4k.sampling import generate_into, fill_jobs

output, seed = Path(sys.argv[1]), int(sys.argv[2])

def generate(recipe, tick):
    print("generating", flush=True)
    sys.stdin.readline()
    return Image.new("RGB", (8, 8))

def recipe(job):
    return {"prompt": job.prompt, "seed": job.seed, "width": 8, "height": 8, "steps": 1}

prompts = ["a cat"] if output.suffix else ["a cat", "a dog", "a rocket"]
try:
    generate_into(output, fill_jobs(prompts, seed=seed), recipe, generate)
except D4KError as error:
    print(error, flush=True)
"""


def child(output: Path, seed: int, rank: int = 0, processes: int = 1) -> subprocess.Popen[str]:
    """A real process that says `generating` before each picture, and waits for a line."""
    environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": str(processes)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(output), str(seed)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


class TestClaim:
    """One launch at a time writes into a folder or a file."""

    def test_second_launch_is_refused_while_the_first_lives(self, tmp_path: Path) -> None:
        """With other seeds, or the very same; the first one ends undisturbed and leaves no hidden file."""
        output = tmp_path / "out"
        with child(output, 1) as first:
            assert said(first) == "generating"
            for seed in (1, 2):
                with child(output, seed) as second:
                    assert said(second).startswith(f"another d4k generate is writing into {output} at this moment")
            first.communicate("\n\n\n")
        names = [f"{number:04d}-{name}-seed1.png" for number, name in enumerate(["a-cat", "a-dog", "a-rocket"])]
        assert sorted(path.name for path in output.iterdir()) == [*names, INDEX]
        assert [row["file"] for row in index(output)] == names

    def test_killed_process_leaves_no_lock(self, tmp_path: Path) -> None:
        """The next one goes on, and takes away what the first one was writing."""
        output = tmp_path / "out"
        with child(output, 1) as first:
            assert said(first) == "generating"
            assert first.stdin is not None
            first.stdin.write("\n")
            first.stdin.flush()
            assert said(first) == "generating"
            first.kill()
        (output / ".0001-a-dog-seed1-abcd_123.png").write_bytes(b"half")
        with child(output, 1) as second:
            assert second.communicate("\n\n")[0].split() == ["generating"] * 2
        assert [path.name for path in output.iterdir() if path.name.startswith(".")] == []
        assert len(index(output)) == 3

    def test_processes_of_one_launch_share_a_folder_and_no_others(self, tmp_path: Path) -> None:
        """Another share of the same prompts is welcome; another seed, or another number of processes, is not."""
        output = tmp_path / "out"
        with child(output, 1, 0, 2) as first:
            assert said(first) == "generating"
            for seed, rank, processes in ((2, 1, 2), (1, 1, 3), (1, 0, 2), (1, 0, 1)):
                with child(output, seed, rank, processes) as foreign:
                    assert said(foreign).startswith("another d4k generate")
            with child(output, 1, 1, 2) as second:
                assert second.communicate("\n")[0].split() == ["generating"]
            first.communicate("\n\n")
        assert [row["file"][:4] for row in index(output)] == ["0000", "0001", "0002"]

    def test_two_processes_do_not_write_one_file(self, tmp_path: Path) -> None:
        """The second is refused before it generates; the name is free again when the first was killed."""
        output = tmp_path / "new" / "x.png"
        with child(output, 1) as first:
            assert said(first) == "generating"
            with child(output, 2) as second:
                assert said(second) == f"another d4k generate is writing {output} at this moment; name another file"
            first.kill()
        with child(output, 3) as third:
            third.communicate("\n")
        assert read_recipe(output)["seed"] == 3


class TestFile:
    """A single file is a folder of one."""

    def test_recipe_that_is_saved_is_the_one_that_was_sampled_with(self, tmp_path: Path) -> None:
        """In a file as in a folder; there is no index beside a file."""
        seen = []

        def generate(settings: Any, tick: Any) -> Image.Image:
            seen.append(settings)
            return black(settings, tick)

        for output in (tmp_path / "one.webp", tmp_path / "many"):
            file = generate_into(output, jobs(1), recipe, generate)[0]
            assert read_recipe(file) == json.loads(json.dumps(seen.pop()))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one.webp"]

    def test_file_that_another_program_makes_meanwhile_is_kept(self, tmp_path: Path) -> None:
        """The name is taken exclusively."""
        file = tmp_path / "x.png"

        def generate(settings: Any, tick: Any) -> Image.Image:
            file.write_text("precious")
            return black(settings, tick)

        with pytest.raises(OutputError, match=r"x\.png was made by another program meanwhile, and is kept"):
            generate_into(file, jobs(1), recipe, generate)
        assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
        assert file.read_text() == "precious"

    def test_file_system_without_hard_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The picture is renamed there."""

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        assert generate_into(tmp_path / "x.jpg", jobs(1), recipe, black) == [tmp_path / "x.jpg"]
        assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]

    def test_recipe_that_the_format_cannot_hold_is_refused_before_generating(self, tmp_path: Path) -> None:
        """A prompt of 100 kB does not go into a JPEG; into a PNG it does."""
        long = [Job("x" * 100_000, seed=0)]
        with pytest.raises(ConfigError, match=r"cannot write x\.jpg: its recipe has \d+ bytes, EXIF holds 65000"):
            generate_into(tmp_path / "new" / "x.jpg", long, recipe, lambda *_: pytest.fail("was generated"))
        assert list(tmp_path.iterdir()) == []
        assert read_recipe(generate_into(tmp_path / "x.png", long, recipe, black)[0])["prompt"] == long[0].prompt

    def test_process_without_a_share_does_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also when another one has written the file."""
        as_process(monkeypatch, 1, 2)
        (tmp_path / "x.png").touch()
        assert generate_into(tmp_path / "x.png", jobs(1), recipe, black) == []


class TestIndex:
    """Appended to, believed where nothing speaks against it, and repaired."""

    def test_pictures_of_the_index_are_not_opened(self, tmp_path: Path) -> None:
        """Garbage in a file that is older than its line stays unseen; a newer file is opened."""
        file = generate_into(tmp_path, jobs(2), recipe, black)[0]
        file.write_bytes(b"garbage")
        os.utime(file, (0, 0))
        assert len(generate_into(tmp_path, jobs(2), recipe, lambda *_: pytest.fail("was generated"))) == 2
        os.utime(file)
        os.utime(tmp_path / INDEX, (1, 1))
        with pytest.raises(DataError, match="0000-picture-0-seed0"):
            generate_into(tmp_path, jobs(2), recipe, black)

    def test_index_grows_by_one_line_for_each_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is the same file throughout, never written anew."""
        seen = []

        def look(file: Path) -> None:
            seen.append(((tmp_path / INDEX).stat().st_ino, len(index(tmp_path))))

        generate_into(tmp_path, jobs(4), recipe, black, on_picture=look)
        assert [count for _, count in seen] == [1, 2, 3, 4]
        assert len({inode for inode, _ in seen}) == 1

    @pytest.mark.parametrize(
        "damage",
        [
            b'{"file": "0001-pict',
            b"[" * 100_000 + b"\n",
            b'{"file": 7}\n',
            b'{"file": "other.png"}\n',
            b"\xff\n",
            b"\n",
        ],
    )
    def test_damaged_line_is_repaired(self, tmp_path: Path, damage: bytes) -> None:
        """One that was cut off, one nobody wrote: the picture itself is asked, and the index is whole again."""
        generate_into(tmp_path, jobs(3), recipe, black)
        whole = (tmp_path / INDEX).read_bytes()
        lines = whole.splitlines(keepends=True)
        (tmp_path / INDEX).write_bytes(lines[0] + lines[2] + damage)
        generate_into(tmp_path, jobs(3), recipe, lambda *_: pytest.fail("was generated"))
        assert (tmp_path / INDEX).read_bytes() == whole

    def test_line_that_another_process_left_cut_off_spoils_no_other(self, tmp_path: Path) -> None:
        """What is appended begins a line of its own."""

        def generate(settings: Any, tick: Any) -> Image.Image:
            if settings["prompt"] == "picture 1":
                with (tmp_path / INDEX).open("ab") as file:
                    file.write(b'{"file": "000')
            return black(settings, tick)

        def look(file: Path) -> None:
            seen.append((tmp_path / INDEX).read_bytes().splitlines()[-1])

        seen: list[bytes] = []
        generate_into(tmp_path, jobs(2), recipe, generate, on_picture=look)
        assert json.loads(seen[-1])["prompt"] == "picture 1"
        assert len(index(tmp_path)) == 2

    def test_line_that_was_edited_does_not_count_against_the_picture(self, tmp_path: Path) -> None:
        """What is in the picture is true, and what a line lacks is asked there."""
        generate_into(tmp_path, jobs(1), recipe, black)
        whole = (tmp_path / INDEX).read_bytes()
        for edited in (whole.replace(b'"steps": 2', b'"steps": 9'), b'{"file": "0000-picture-0-seed0.png"}\n'):
            (tmp_path / INDEX).write_bytes(edited)
            generate_into(tmp_path, jobs(1), recipe, lambda *_: pytest.fail("was generated"))
            assert (tmp_path / INDEX).read_bytes() == whole

    def test_deleted_picture_is_generated_again_and_listed_once(self, tmp_path: Path) -> None:
        """In its place."""
        generate_into(tmp_path, jobs(3), recipe, black)[1].unlink()
        made: list[Path] = []
        generate_into(tmp_path, jobs(3), recipe, black, on_picture=made.append)
        assert [file.name[:4] for file in made] == ["0001"]
        assert [row["file"][:4] for row in index(tmp_path)] == ["0000", "0001", "0002"]

    def test_full_disk_leaves_no_part_of_a_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The picture that was finished is listed by the next call."""
        sync, calls = os.fsync, []

        def full(handle: int) -> None:
            calls.append(handle)
            if len(calls) == 4:  # the second picture's line; before it: a picture, its line, a picture
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match=r"cannot write .*index\.jsonl: No space left on device; run again"):
            generate_into(tmp_path, jobs(3), recipe, black)
        assert len(index(tmp_path)) == 1
        generate_into(tmp_path, jobs(3), recipe, black)
        assert len(index(tmp_path)) == 3

    def test_recipes_are_made_one_at_a_time(self, tmp_path: Path) -> None:
        """When the first picture begins, no more than two were asked for."""
        asked: list[Job] = []

        def lazy(job: Job) -> dict[str, Any]:
            asked.append(job)
            return recipe(job)

        def generate(settings: Any, tick: Any) -> Image.Image:
            raise Stop

        (tmp_path / "out").mkdir()
        with pytest.raises(Stop):
            generate_into(tmp_path / "out", jobs(1000), lazy, generate)
        assert len(asked) <= 2

    def test_progress_is_shown_before_the_first_step(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """With the number of steps and pictures."""

        def generate(settings: Any, tick: Any) -> Image.Image:
            assert "0/6" in (shown := capsys.readouterr().err)
            assert "pictures=0/3" in shown
            raise Stop

        with pytest.raises(Stop):
            generate_into(tmp_path, jobs(3), recipe, generate)


class TestOutput:
    """What cannot be written is said first."""

    def test_name_that_no_folder_can_have(self, tmp_path: Path) -> None:
        """A parent that is a file, a NUL, a name too long, for a folder and for a file."""
        (tmp_path / "file").write_text("precious")
        for name, message in (
            ("file/sub", r"output folder .*sub cannot be made, because .*file is a file; name another"),
            ("file/sub.png", r"output .*sub\.png cannot be made, because .*file is a file"),
            ("a\0b", "NUL character"),
            ("x" * 300, "File name too long"),
            ("x" * 300 + ".png", "File name too long"),
        ):
            with pytest.raises(OutputError, match=message):
                check_output(tmp_path / name)
            with pytest.raises(OutputError, match=message):
                generate_into(tmp_path / name, jobs(1), recipe, black)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
    def test_folder_without_permission(self, tmp_path: Path) -> None:
        """Before anything is generated."""
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="no permission"):
            check_output(tmp_path / "closed" / "out")

    def test_folder_may_be_called_like_a_version(self, tmp_path: Path) -> None:
        """Or have any ending when it is there; only what is no folder and ends like a file is taken for one."""
        (tmp_path / "set.b").mkdir()
        for name in ("v1.0", "set.b"):
            assert generate_into(tmp_path / name, jobs(1), recipe, black)[0].parent == tmp_path / name
        with pytest.raises(ConfigError, match=r"unknown ending '\.gif'; allowed: \.png, .* or a folder's name without"):
            check_output(tmp_path / "x.gif")

    def test_parents_that_were_made_vanish_on_failure(self, tmp_path: Path) -> None:
        """Of a folder and of a file."""

        def fail(settings: Any, tick: Any) -> Image.Image:
            raise Stop

        for name in ("a/b/c", "a/b/x.png"):
            with pytest.raises(Stop):
                generate_into(tmp_path / name, jobs(1), recipe, fail)
            assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("a\0b", "prompt holds a NUL character at place 2"), ("cat \ud800", "lone surrogate\\) stands at place 5")],
)
def test_text_that_no_file_can_hold_is_refused(prompt: str, message: str) -> None:
    """Wherever it comes from: every prompt is a job."""
    with pytest.raises(ConfigError, match=message):
        Job(prompt)


def test_recipe_that_lacks_something_is_refused() -> None:
    """What is missing is named."""
    with pytest.raises(DataError, match=r"the recipe in a\.png has no seed, model"):
        check_recipe({"prompt": "a", "width": 1, "height": 1, "steps": 1, "guidance": 1}, Path("a.png"))
