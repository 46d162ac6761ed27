"""The command line: what it writes, and one clear line with exit code 2 for everything a user can get wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from d4k import ModelRef, OutputError, Pipeline, Preset, __version__, hookimpl
from d4k.cli import main
from d4k.cli.placement import OPTIONS
from d4k.cli.prompts import read_jobs, read_prompts
from d4k.errors import DataError
from d4k.images import read_recipe, save_picture
from d4k.sampling import versions

SMALL = ("--width", "16", "--height", "12", "--steps", "2", "--device", "cpu")
FAKE = ("--model", "fake-model", *SMALL)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_plugin: None) -> None:
    monkeypatch.chdir(tmp_path)


def d4k(*arguments: str | Path) -> Result:
    """Run a command in this process; what is not a D4KError is raised."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False, prog_name="d4k")


def refused(*arguments: str | Path) -> str:
    """The one line that a command fails with; exit code 2, nothing on the standard output, no traceback."""
    result = d4k(*arguments)
    lines = result.stderr.splitlines()
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert [line.startswith("error: ") for line in lines] == [True], result.stderr
    return lines[0]


def settings(**values: Any) -> list[str]:
    """`--set` for a short run on the folder `photos`."""
    usual = {
        "model": "fake-model", "dataset.name": "folder", "dataset.options.path": "photos", "loss.name": "mse",
        "output_dir": "run", "training.steps": 2,
    }  # fmt: skip
    pairs = usual | {key.replace("__", "."): value for key, value in values.items()}
    return [part for key, value in pairs.items() for part in ("--set", f"{key}={value}")]


def pixels(file: str) -> Any:
    with Image.open(file) as image:
        return np.asarray(image)


class TestGenerate:
    """One picture for each prompt, with its recipe."""

    def test_pictures_are_named_after_their_prompts(self) -> None:
        """Number, words, seed; the names go to the standard output, the progress does not."""
        result = d4k("generate", "A tabby cat!", "ракета", *FAKE, "--seed", "3", "--output", "out")
        assert result.exit_code == 0
        names = ["out/0000-a-tabby-cat-seed3.png", "out/0001-image-seed3.png"]
        assert result.stdout.split() == names
        assert [pixels(name).shape for name in names] == [(12, 16, 3)] * 2

    def test_recipe_is_stored_and_makes_the_same_picture_again(self) -> None:
        """A picture carries everything that made it."""
        d4k("generate", "a cat", *FAKE, "--guidance", "1.5", "--negative-prompt", "dog", "--output", "a.png")
        recipe = read_recipe(Path("a.png"))
        assert recipe == {
            "prompt": "a cat", "seed": 0, "model": "fake-model", "width": 16, "height": 12, "steps": 2,
            "guidance": 1.5, "shift": "scheduler", "negative_prompt": "dog", "options": {}, "dtype": "float32",
            "device": "cpu", "versions": versions(),
        }  # fmt: skip
        d4k("generate", recipe["prompt"], *FAKE, "--guidance", "1.5", "--negative-prompt", "dog", "--output", "b.png")
        assert np.array_equal(pixels("a.png"), pixels("b.png"))

    def test_prompts_come_from_arguments_and_a_file(self) -> None:
        """Empty lines are left out, white space is trimmed, a byte-order mark is no part of a prompt."""
        Path("p.txt").write_text("\ufeff one \n\ntwo\n", encoding="utf-8")
        assert read_prompts(Path("p.txt")) == ["one", "two"]
        assert len(d4k("generate", "zero", "--prompts", "p.txt", *FAKE).stdout.split()) == 3
        assert len(list(Path("images").glob("*.png"))) == 3

    def test_no_prompt(self) -> None:
        """It says both ways to give one."""
        assert refused("generate") == "error: no prompt was given; write one in quotes, or pass --prompts FILE"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\x89PNG\r\n\x1a\n\xff", "p.txt is not a text file in UTF-8 (byte 0); give one prompt a line"),
            (b"PK\x03\x04", "p.txt is not a text file: it holds control characters"),
            (b"\n \n", "p.txt holds no prompt"),
            (None, "cannot read prompts from p.txt: No such file or directory"),
        ],
    )
    def test_prompt_file_that_is_not_text(self, content: bytes | None, message: str) -> None:
        """A picture, an archive, an empty file, no file."""
        if content is not None:
            Path("p.txt").write_bytes(content)
        assert message in refused("generate", "--prompts", "p.txt", *FAKE)
        with pytest.raises(DataError) as caught:
            read_prompts(Path("p.txt"))
        assert caught.value.path == Path("p.txt")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--model", "fake-modle"), "unknown model 'fake-modle'; did you mean 'fake-model'? Known: fake-model."),
            ((*FAKE, "--width", "18"), "width 18 is not a multiple of 4; nearest: 16 or 20"),
            ((*FAKE, "--height", "4096"), "fake covers at most 64 pixels; asked for height 4096"),
            ((*FAKE, "--steps", "0"), "steps must be a whole number of at least 1, got 0"),
            (
                (*FAKE, "--dtype", "float23"),
                "unknown dtype 'float23'; did you mean 'float32'? Known: bfloat16, float16",
            ),
            ((*FAKE, "--device", "gpu"), "device 'gpu' is not available here; try 'cuda', 'mps' or 'cpu'"),
            (("--model", "no-such", "--output", "a.gif"), "cannot write a.gif: unknown ending '.gif'; allowed: .png"),
        ],
    )
    def test_wrong_values_are_one_line(self, arguments: tuple[str, ...], message: str) -> None:
        """Each with what is allowed."""
        assert message in refused("generate", "a cat", *arguments)

    def test_run_again_generates_what_is_missing(self) -> None:
        """What was there is said on the error stream."""
        d4k("generate", "a", *FAKE)
        result = d4k("generate", "a", "b", *FAKE)
        assert result.stdout.split() == ["images/0001-b-seed0.png"]
        assert "1 of 2 pictures were there already" in result.stderr
        assert "0000-a-seed0.png was generated with other settings" in refused(
            "generate", "a", "b", *FAKE, "--steps", "3"
        )

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
    def test_recipe_of_a_picture_repeats_it_bit_for_bit(self, ending: str) -> None:
        """Model, options, size, steps, guidance, shift, seed and negative prompt; compression loses nothing of it."""
        given = ("--guidance", "1.5", "--shift", "2", "--seed", "4", "--negative-prompt", "dog", "--option", "seed=7")
        d4k("generate", "a cat", *FAKE, *given, "--output", "a.png")
        d4k("generate", "--recipe", "a.png", "--output", f"b.{ending}")
        result = d4k("generate", "--recipe", f"b.{ending}", "--output", "c.png")
        assert (result.exit_code, result.stdout) == (0, "c.png\n")
        assert np.array_equal(pixels("a.png"), pixels("c.png"))
        assert read_recipe(Path("c.png")) == read_recipe(Path("a.png"))
        assert read_recipe(Path("c.png"))["options"] == {"seed": 7}

    def test_what_is_given_beside_a_recipe_wins(self) -> None:
        """Also a value that equals the default of the option, and another prompt."""
        d4k("generate", "a cat", *FAKE, "--seed", "4", "--option", "seed=7", "--output", "a.png")
        recipe = read_recipe(Path("a.png"))
        d4k("generate", "a dog", "--recipe", "a.png", "--seed", "0", "--option", "seed=8", "--output", "b.png")
        changed = {"prompt": "a dog", "seed": 0, "options": {"seed": 8}}
        assert read_recipe(Path("b.png")) == recipe | changed

    def test_picture_without_a_recipe(self, photos: Path) -> None:
        """It is named, and so is a file that is no picture."""
        assert "photos/0.png carries no recipe" in refused("generate", "--recipe", "photos/0.png")
        assert "photos/0.txt cannot be read" in refused("generate", "--recipe", "photos/0.txt")

    def test_options_of_the_backbone(self) -> None:
        """Checked as everywhere; `--downscale` is one of them."""
        message = "backbone 'fake' has no option 'sed'; did you mean 'seed'?"
        assert message in refused("generate", "a", *FAKE, "--option", "sed=1")
        assert "backbone 'fake' has no option 'downscale'" in refused("generate", "a", *FAKE, "--downscale", "16")
        assert "cannot read the setting 'seed'; write it as key=value" in refused("generate", "a", "--option", "seed")

    @pytest.mark.parametrize("arguments", [("--width", "18"), ("--model", "no-such"), ("--steps", "0")])
    def test_failure_leaves_no_folder(self, arguments: tuple[str, str]) -> None:
        """Nor an index in it."""
        refused("generate", "a", *FAKE, *arguments, "--output", "out")
        assert not Path("out").exists()

    def test_nothing_is_overwritten(self) -> None:
        """Neither a folder in use nor a file; two prompts do not go into one file."""
        Path("images").mkdir()
        Path("images/mine.txt").write_text("precious")
        assert "output folder images exists and is not empty; name another" in refused("generate", "a", *FAKE)
        Path("a.png").write_text("precious")
        assert "a.png exists already; name another file" in refused("generate", "a", *FAKE, "--output", "a.png")
        assert "2 prompts do not fit into one file, b.png" in refused("generate", "a", "b", *FAKE, "--output", "b.png")
        assert Path("a.png").read_text() == "precious"

    def test_full_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file is named, and nothing half-written is left."""

        def full(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        result = d4k("generate", "a", *FAKE, "--output", "out")
        assert result.exit_code == 2
        assert result.stderr.splitlines()[-1] == (
            "error: cannot write out/0000-a-seed0.png: No space left on device; nothing was left half-written"
        )
        assert not Path("out").exists()

    def test_output_is_checked_before_everything_else(self) -> None:
        """Even the model and the prompts are not looked for."""
        Path("file").write_text("precious")
        arguments = ("--prompts", "no-such.txt", "--model", "no-such")
        message = "output folder file/sub cannot be made, because "
        assert message in refused("generate", *arguments, "--output", "file/sub")
        assert "cannot write a.gif: unknown ending" in refused("generate", *arguments, "--output", "a.gif")

    @pytest.mark.parametrize(("given", "shift"), [("scheduler", "scheduler"), ("2.5", 2.5)])
    def test_shift_is_a_number_or_the_word_scheduler(
        self, monkeypatch: pytest.MonkeyPatch, given: str, shift: float | str
    ) -> None:
        """Passed on as it is."""
        seen: list[Any] = []
        monkeypatch.setattr(Pipeline, "generate_to", lambda *_, shift, **__: seen.append(shift) or [])
        assert d4k("generate", "a", *FAKE, "--shift", given).exit_code == 0
        assert seen == [shift]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--shift", "schedular"), "'schedular' is neither a number nor the word scheduler"),
            (("--seed", str(2**63)), "is not in the range 0<=x<=9223372036854775807"),
        ],
    )
    def test_value_that_the_command_line_refuses(self, arguments: tuple[str, str], message: str) -> None:
        """With what is allowed."""
        result = d4k("generate", "a", *FAKE, *arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())

    def test_recipe_of_somebody_else_downloads_nothing_unasked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Model, denoiser and adapter are named; what is named on the command line needs no permission."""
        theirs = {
            "prompt": "a", "seed": 0, "model": "some/model", "width": 16, "height": 12, "steps": 2, "guidance": 1.0,
            "transformer": "some/denoiser/x.safetensors",
            "adapters": [{"name": "x", "source": "some/adapter", "sha256": "0", "scale": 1.0}],
        }  # fmt: skip
        save_picture(Image.new("RGB", (8, 8)), Path("a.png"), recipe=theirs)
        message = (
            "the recipe in a.png needs the model 'some/model' and the denoiser 'some/denoiser/x.safetensors' and the "
            "adapter 'some/adapter', which would be downloaded from the Hugging Face Hub; pass --allow-download"
        )
        assert message in refused("generate", "--recipe", "a.png", "--output", "b.png")
        loaded: list[Any] = []

        def load(ref: ModelRef, **options: Any) -> Any:
            loaded.append(ref.name)
            raise OutputError("stop here")

        monkeypatch.setattr(Pipeline, "from_pretrained", load)
        refused("generate", "--recipe", "a.png", "--output", "b.png", "--allow-download")
        given = ("--model", "my/model", "--transformer", "my/denoiser", "--adapter", "my/adapter")
        refused("generate", "--recipe", "a.png", "--output", "b.png", *given)
        assert loaded == ["some/model", "my/model"]
        assert "needs the adapter 'some/adapter'," in refused("generate", "--recipe", "a.png", *given[:4])

    def test_what_is_in_the_cache_needs_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not downloaded again."""
        import huggingface_hub.constants as hub

        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
        snapshot = tmp_path / "hub" / "models--some--model" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "model_index.json").write_text('{"_class_name": "Other"}')
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
        theirs = {
            "prompt": "a", "seed": 0, "model": "some/model", "width": 16, "height": 12, "steps": 2, "guidance": 1.0,
        }  # fmt: skip
        save_picture(Image.new("RGB", (8, 8)), Path("a.png"), recipe=theirs)
        assert "some/model is a Other, which no installed plugin loads" in refused("generate", "--recipe", "a.png")

    def test_terminal_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Yes goes on, no ends."""
        theirs = {
            "prompt": "a", "seed": 0, "model": "some/model", "width": 16, "height": 12, "steps": 2, "guidance": 1.0,
        }  # fmt: skip
        save_picture(Image.new("RGB", (8, 8)), Path("a.png"), recipe=theirs)
        monkeypatch.setattr("d4k.cli.recipe.on_terminal", lambda: True)

        def load(ref: ModelRef, **options: Any) -> Any:
            raise OutputError(f"loading {ref.name}")

        monkeypatch.setattr(Pipeline, "from_pretrained", load)
        for answer, message in (("y", "error: loading some/model"), ("n", "error: the recipe in a.png needs")):
            result = CliRunner().invoke(main, ["generate", "--recipe", "a.png"], input=answer)
            assert result.exit_code == 2
            assert "with your account. Download? [y/N]" in result.stderr
            assert message in result.stderr

    def test_damaged_model(self) -> None:
        """An index that is garbage, weights that were cut, a folder that is no model."""
        folder = Path("model")
        folder.mkdir()
        arguments = ("generate", "a", "--model", "model", *SMALL, "--output", "out")
        assert "model has no model_index.json" in refused(*arguments)
        (folder / "model_index.json").write_text("garbage")
        assert "model/model_index.json is not readable JSON" in refused(*arguments)
        (folder / "model_index.json").write_text('{"_class_name": "FakePipeline"}')
        (folder / "denoiser.safetensors").write_bytes(b"\x10\0\0\0")
        assert "cannot load 'model'" in refused(*arguments)


class TestPrompts:
    """From text, JSON lines and datasets."""

    def test_json_lines(self) -> None:
        """Seed, size, negative prompt and id are those of the line."""
        Path("p.jsonl").write_text(
            '{"text": "a cat", "seed": 5, "width": 20, "height": 8, "negative_prompt": "dog", "id": "x"}\n\n'
            '{"file_name": "b.png", "text": "a \u2028 dog"}\n',
            encoding="utf-8",
        )
        assert d4k("generate", "--prompts", "p.jsonl", *FAKE).stdout.split() == [
            "images/0000-x-seed5.png", "images/0001-a-dog-seed0.png",
        ]  # fmt: skip
        recipe = read_recipe(Path("images/0000-x-seed5.png"))
        assert [recipe[key] for key in ("width", "height", "negative_prompt")] == [20, 8, "dog"]
        assert d4k("generate", "--prompts", "p.jsonl", *FAKE, "--output", "b.png").exit_code == 2

    def test_line_goes_into_one_file_too(self) -> None:
        """With its own seed."""
        Path("p.jsonl").write_text('{"text": "a cat", "seed": 5}')
        assert d4k("generate", "--prompts", "p.jsonl", *FAKE, "--output", "a.png").exit_code == 0
        assert read_recipe(Path("a.png"))["seed"] == 5

    def test_index_of_a_folder_generates_it_again(self) -> None:
        """Its lines have prompt, seed and size; `d4k evaluate` takes the prompts from it."""
        d4k("generate", "a", "b", *FAKE, "--seed", "3")
        d4k("generate", "--prompts", "images/index.jsonl", *FAKE, "--output", "again")
        assert read_prompts("images/index.jsonl") == ["a", "b"]
        assert Path("again/index.jsonl").read_bytes() == Path("images/index.jsonl").read_bytes()

    def test_dataset_by_name(self, photos: Path) -> None:
        """Its captions, in its order; options are its own."""
        option = ("--prompt-option", "path=photos")
        result = d4k("generate", "--prompts", "folder", *option, *FAKE)
        assert [read_recipe(Path(name))["prompt"] for name in result.stdout.split()] == [
            f"picture {i}" for i in range(5)
        ]
        assert "dataset 'folder' has no option 'pth'" in refused(
            "generate", "--prompts", "folder", "--prompt-option", "pth=x"
        )
        assert d4k("evaluate", "photos", "--metric", "brightness", "--prompts", "folder", *option).exit_code == 0

    def test_dataset_counts_where_a_folder_has_its_name(self, photos: Path) -> None:
        """Such as the folder of an earlier `--output`."""
        Path("folder").mkdir()
        assert len(read_jobs("folder", ["path=photos"])) == 5

    def test_ending_may_be_in_capitals(self) -> None:
        """A line is an object or, for the prompt alone, a string."""
        Path("P.JSONL").write_text('{"text": "a cat", "seed": 5}\n"a dog"\n')
        assert [(job.prompt, job.seed) for job in read_jobs("P.JSONL")] == [("a cat", 5), ("a dog", None)]

    def test_json_is_an_array(self) -> None:
        """Of strings and objects; the entry that is malformed is named."""
        Path("p.json").write_text('["a cat",\n {"text": "a dog", "seed": 5}]')
        assert [(job.prompt, job.seed) for job in read_jobs("p.json")] == [("a cat", None), ("a dog", 5)]
        for content, message in (
            ('{"text": "a"}', r'p\.json must hold an array such as \["a cat"'),
            ('["a", 5]', r"p\.json, entry 2: it must be an object"),
            ('["a",\n', r"p\.json is not readable JSON: .*line 2"),
            ("[" * 100_000, r"p\.json is not readable JSON: it is nested too deep"),
            ("[]", r"p\.json holds no prompt"),
        ):
            Path("p.json").write_text(content)
            with pytest.raises(DataError, match=message):
                read_jobs("p.json")

    @pytest.mark.parametrize(
        ("content", "named"), [('{"text": "a"}\n{"text": "b"}\n', "p.jsonl"), ('[\n"a cat",\n"a dog"\n]', "p.json")]
    )
    def test_json_under_another_ending_is_refused(self, content: str, named: str) -> None:
        """It would be generated word for word; a text that only begins like it is a prompt."""
        Path("p.txt").write_text(content)
        assert f"p.txt looks like JSON; call it {named} to have its objects read" in refused(
            "generate", "--prompts", "p.txt", *FAKE
        )
        Path("p.txt").write_text("[macro] a bee\n{a|the} cat\n")
        assert read_prompts("p.txt") == ["[macro] a bee", "{a|the} cat"]

    def test_empty_prompt_is_one_only_in_json(self) -> None:
        """An empty line of a text separates; an empty string of a JSON file is meant."""
        Path("p.txt").write_text("a\n\nb\n")
        Path("p.jsonl").write_text('"a"\n\n{"text": ""}\n')
        assert read_prompts("p.txt") == ["a", "b"]
        assert read_prompts("p.jsonl") == ["a", ""]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"text": "a\\ud800"}', "line 1 is not readable JSON: it holds half a character (the lone surrogate"),
            ('{"text": "a\\u0000"}', "line 1: prompt holds a NUL character at place 2"),
            ('{"text": "a", "\\ud800": 1}', "line 1 is not readable JSON: it holds half a character"),
            ('{"text": "a", "seed": ' + "9" * 5000 + "}", "it holds an integer of 5000 digits"),
            ("[" * 100_000, "line 1 is not readable JSON: it is nested too deep"),
        ],
    )
    def test_line_that_is_hostile(self, line: str, message: str) -> None:
        """Half a character, a NUL, thousands of digits, a hundred thousand brackets."""
        Path("p.jsonl").write_text(line)
        assert message in refused("generate", "--prompts", "p.jsonl", *FAKE)

    def test_path_that_no_file_can_have(self) -> None:
        """A NUL, a name too long, a folder."""
        Path("p").mkdir()
        for name, message in (("a\0b", "null byte"), ("x" * 300, "File name too long"), ("p", "Is a directory")):
            with pytest.raises(DataError, match=message):
                read_jobs(name)

    def test_options_beside_a_file(self) -> None:
        """They would be ignored."""
        Path("p.txt").write_text("a")
        assert "--prompt-option is for a dataset" in refused("generate", "--prompts", "p.txt", "--prompt-option", "a=1")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{'text': 1}", "p.jsonl, line 2 is not readable JSON: Expecting property name enclosed in double quotes"),
            ("[1]", "p.jsonl, line 2: it must be an object such as"),
            ('{"text": 5}', "p.jsonl, line 2: prompt must be a string, got 5"),
            ('{"seed": 5}', "p.jsonl, line 2: it must have 'text', the prompt"),
            (
                '{"text": "a", "prompt": "b"}',
                "p.jsonl, line 2: it must have 'text', the prompt, and not 'prompt' as well",
            ),
            ('{"text": "a", "sed": 5}', "p.jsonl, line 2: unknown key 'sed'; did you mean 'seed'? Known: text, prompt"),
            ('{"text": "a", "seed": "5"}', "p.jsonl, line 2: seed must be a whole number of at least 0, got '5'"),
            ('{"text": "a", "width": 0}', "p.jsonl, line 2: width must be a whole number of at least 1, got 0"),
        ],
    )
    def test_malformed_line(self, line: str, message: str) -> None:
        """File and line are named, also as attributes."""
        Path("p.jsonl").write_text(f'{{"text": "a"}}\n{line}\n')
        assert message in refused("generate", "--prompts", "p.jsonl", *FAKE)
        with pytest.raises(DataError) as caught:
            read_jobs("p.jsonl")
        assert (caught.value.path, caught.value.line) == (Path("p.jsonl"), 2)


class TestTrain:
    """A run from TOML and settings."""

    def test_settings_override_the_file(self, photos: Path) -> None:
        """The resolved configuration lies beside the output; the command says where everything is."""
        Path("run.toml").write_text(
            'model = "fake-model"\noutput_dir = "run"\n[dataset]\nname = "folder"\n[dataset.options]\npath = "photos"\n'
            '[loss]\nname = "mse"\n[training]\nsteps = 9\n'
        )
        result = d4k("train", "run.toml", "--set", "training.steps=2", "--device", "cpu")
        assert result.exit_code == 0, result.output
        losses = Path("run/losses.jsonl").read_text().splitlines()
        assert len(losses) == 2
        last = json.loads(losses[-1])["loss"]
        assert result.stdout.splitlines() == [
            f"2 steps done; last loss {last:.4f}", "model: run/model", "losses: run/losses.jsonl",
        ]  # fmt: skip
        assert "steps = 2" in Path("run/config.toml").read_text()

    def test_trained_model_generates_and_resumes(self, photos: Path) -> None:
        """The folder of the run is a model; `--resume` continues it."""
        assert d4k("train", *settings(), "--device", "cpu").exit_code == 0
        assert d4k("generate", "a", "--model", "run", *SMALL, "--output", "a.png").exit_code == 0
        result = d4k("train", *settings(training__steps=3), "--resume", "--device", "cpu")
        assert result.stdout.startswith("3 steps done")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model": "fake-modle"}, "unknown model 'fake-modle'; did you mean 'fake-model'?"),
            ({"loss__name": "mes"}, "unknown loss 'mes'; did you mean 'mse'? Known: mse. Try: d4k plugins"),
            ({"dataset__name": "foldre"}, "unknown dataset 'foldre'; did you mean 'folder'?"),
            ({"dataset__options__pth": "x"}, "dataset 'folder' has no option 'pth'; did you mean 'path'?"),
            ({"backbone__sed": 1}, "backbone 'fake' has no option 'sed'; did you mean 'seed'? Options: source, seed."),
            ({"training__stps": 1}, "unknown key 'training.stps'; did you mean 'steps'?"),
            ({"data__width": 18}, "width 18 is not a multiple of 4; nearest: 16 or 20"),
            ({"dataset__options__path": "nowhere"}, "nowhere is not a folder"),
        ],
    )
    def test_wrong_settings_are_one_line(self, photos: Path, changes: dict[str, Any], message: str) -> None:
        """Unknown names and keys come with a suggestion."""
        assert message in refused("train", *settings(**changes), "--device", "cpu")

    def test_wrong_file_and_setting(self) -> None:
        """A missing TOML file, broken TOML, a key that does not exist, a setting without a value."""
        assert "cannot read none.toml: No such file" in refused("train", "none.toml")
        Path("run.toml").write_text("x = ")
        assert "run.toml is not valid TOML" in refused("train", "run.toml")
        Path("run.toml").write_text("outputdir = 1")
        assert "unknown key 'outputdir'; did you mean 'output_dir'? Known: model" in refused("train", "run.toml")
        assert "cannot read the setting 'steps'; write it as key=value" in refused("train", "--set", "steps")
        assert "missing key 'model'" in refused("train")

    def test_output_folder_in_use_is_refused_before_the_model_is_loaded(self) -> None:
        """Even the unknown model is not looked for."""
        Path("run").mkdir()
        Path("run/mine.txt").write_text("precious")
        assert "output folder run exists and is not empty" in refused("train", *settings(model="nothing"))

    def test_failure_leaves_no_folder(self, photos: Path) -> None:
        """Neither an unknown model nor a wrong size makes one."""
        for changes in ({"model": "fake-modle"}, {"data__width": 18}):
            refused("train", *settings(**changes), "--device", "cpu")
            assert not Path("run").exists()

    def test_nothing_to_resume(self, photos: Path) -> None:
        """It says so instead of starting anew."""
        assert "nothing to resume in run" in refused("train", *settings(), "--resume", "--device", "cpu")


class TestEvaluate:
    """Scores on the terminal and on disk."""

    def test_table_json_and_markdown(self, photos: Path) -> None:
        """One row named after the folder, and the number of images."""
        result = d4k("evaluate", "photos", "--metric", "brightness", "--json", "a.json", "--markdown", "a.md")
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0].split() == ["brightness", "[levels]", "↑", "largest", "n"]
        assert lines[1].split()[0] == "photos"
        assert lines[-1] == "5 images"
        assert json.loads(Path("a.json").read_text())["systems"][0]["scores"][0]["count"] == 5
        assert Path("a.md").read_text().startswith("|  | brightness [levels]")

    def test_one_image_is_not_a_plural(self, photos: Path) -> None:
        """A folder of one."""
        Path("one").mkdir()
        (photos / "0.png").rename("one/0.png")
        assert d4k("evaluate", "one", "--metric", "brightness").stdout.splitlines()[-1] == "1 image"

    def test_prompts_and_reference_are_passed_on(self, photos: Path) -> None:
        """Both must match the images in number."""
        Path("p.txt").write_text("one\n")
        assert "5 images, but 1 prompts" in refused(
            "evaluate", "photos", "--metric", "brightness", "--prompts", "p.txt"
        )
        Path("empty").mkdir()
        assert "empty holds no picture" in refused(
            "evaluate", "photos", "--metric", "brightness", "--reference", "empty"
        )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--metric", "brightnes"), "unknown metric 'brightnes'; did you mean 'brightness'? Known: brightness."),
            ((), "unknown metric 'glcm'"),
            (("--metric", "brightness", "--json", "a.txt"), "cannot write scores to 'a.txt': the ending must be .json"),
            (
                ("--metric", "brightness", "--markdown", "a.txt"),
                "cannot write scores to 'a.txt': the ending must be .md",
            ),
        ],
    )
    def test_wrong_values_are_one_line(self, photos: Path, arguments: tuple[str, ...], message: str) -> None:
        """Before a picture is read."""
        assert message in refused("evaluate", "photos", *arguments)

    def test_folder_that_is_missing(self) -> None:
        """It is named."""
        assert "nowhere is not a folder" in refused("evaluate", "nowhere", "--metric", "brightness")


def test_plugins_lists_every_name_and_every_problem(install: Callable[..., None], fake_plugin: None) -> None:
    """Kind, name, plugin, version, summary; below it what did not load, and clashes."""
    result = d4k("plugins")
    assert result.exit_code == 0
    rows = [line.split(maxsplit=4) for line in result.stdout.splitlines()]
    assert rows[0] == ["kind", "name", "plugin", "version", "summary"]
    assert ["loss", "mse", "d4k", __version__, "mean squared error of the velocity (rectified flow)"] in rows
    assert ["checkpoint", "fake-model", "d4k-fake", "1.0", "fresh weights"] in rows
    assert "Problems" not in result.stdout
    from d4k.plugins import discovery as plugins

    points: Any = plugins.entry_points(group="d4k")  # type: ignore[attr-defined]
    install(fake=points[0].plugin, twin=points[0].plugin, broken=ImportError("no module named 'x'"))
    lines = d4k("plugins").stdout.splitlines()
    problems = lines[lines.index("Problems:") :]
    assert "  d4k-broken did not load: ImportError: no module named 'x'" in problems
    assert any("metric 'brightness' is claimed by d4k-fake 1.0 and d4k-twin 1.0" in line for line in problems)


def test_demo_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is one call."""
    from d4k import demo

    calls: list[Any] = []
    monkeypatch.setattr(demo, "run_demo", lambda output, **options: calls.append((output, options["steps"])))
    assert d4k("demo", "--output", "x", "--steps", "5").exit_code == 0
    assert calls == [(Path("x"), 5)]


def test_what_is_not_a_d4k_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is not dressed up as a mistake of the user."""
    from d4k import plugins

    def bug() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(plugins, "registry", bug)
    with pytest.raises(ZeroDivisionError):
        d4k("plugins")


def test_message_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts read the last line of the error stream."""
    from d4k import plugins

    def fail() -> None:
        raise OutputError("two\n   lines")

    monkeypatch.setattr(plugins, "registry", fail)
    assert refused("plugins") == "error: two lines"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "-h"], ["--version"]])
def test_help_and_version(arguments: list[str]) -> None:
    """Commands are listed in the order of use; examples are in the help."""
    result = d4k(*arguments)
    assert result.exit_code == 0
    if arguments == ["--help"]:
        commands = result.stdout.split("Commands:")[1].splitlines()
        assert [line.split()[0] for line in commands if line.strip()] == [
            "demo",
            "plan",
            "cache",
            "train",
            "generate",
            "upscale",
            "data",
            "evaluate",
            "compare",
            "benchmark",
            "report",
            "adapter",
            "plugins",
            "new",
            "check",
        ]
    if arguments == ["--version"]:
        assert result.stdout == f"d4k, version {__version__}\n"


def test_presets_are_in_the_help(install: Callable[..., None]) -> None:
    """Those of every backbone that is installed, with the stride they are for."""

    class WithPresets:
        @staticmethod
        @hookimpl
        def register_backbones(register: Any) -> None:
            presets = (Preset(1024, 28, 7.0), Preset(4096, 50, 5.5, shift=6.0, downscale=16, restart=0.6))
            register("toy", "x:Y", summary="a toy", presets=presets)

    install(toy=WithPresets)
    lines = d4k("generate", "--help").stdout.splitlines()
    shown = [line.split() for line in lines[-3:]]
    assert shown == [
        ["backbone", "size", "steps", "guidance", "shift", "restart"],
        ["toy", "1024", "28", "7", "scheduler's", "0.7"],
        ["toy", "4096", "(F16)", "50", "5.5", "6", "0.6"],
    ]


def test_help_of_generate_is_in_whole_sentences() -> None:
    """Each option's begins with a capital letter and ends with a full stop, but for the default behind it."""
    placing = set(OPTIONS)
    for option in main.commands["generate"].params:
        if isinstance(option, click.Option) and option.name not in placing:
            assert option.help is not None
            assert option.help[0].isupper(), option.name
            assert option.help.endswith("."), option.name


@pytest.mark.parametrize(
    "command",
    ["plan", "cache", "train", "generate", "upscale", "evaluate", "adapter", "plugins", "new", "check", "demo"],
)
def test_every_command_has_an_example_on_a_line_of_its_own(command: str) -> None:
    """Help that shows how, not only what."""
    lines = [line.strip() for line in d4k(command, "--help").stdout.splitlines()]
    assert lines[lines.index("Example:") + 1].startswith(f"d4k {command}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--set", "modle=x"], "error: unknown key 'modle'; did you mean 'model'?"),
        (["generate", "--prompts", "no-such.txt"], "error: cannot read prompts from no-such.txt: No such file"),
    ],
)
def test_program_exits_with_2_and_one_line(arguments: list[str], message: str) -> None:
    """The same through a real process: no traceback, nothing on the standard output."""
    environment = os.environ | {"D4K_PLUGINS": ""}
    result = subprocess.run([sys.executable, "-m", "d4k", *arguments], capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "a cat", *FAKE, "--option", "device=cpu"], "backbone 'fake' has no option 'device'"),
        (["generate", "a cat", *FAKE, "--option", "source=x"], "'source' is no option of a backbone that may be set"),
        (["generate", "a cat", *FAKE, "--device", "meta"], "device 'meta' is not available here"),
        (
            ["generate", "a cat", *FAKE, "--memory-gb", "nan"],
            "memory_gb must be a number of gigabytes above 0",
        ),
        (["generate", "a cat", *FAKE, "--shift", "0"], "shift must be a number above 0, got 0"),
        (["generate", "a cat", *FAKE, "--guidance", "-1"], "guidance must be a number of at least 0, got -1"),
        (["plan", "--model", "fake-model", "--option", "width=5"], "backbone 'fake' has no option 'width'"),
        (
            ["plan", "--model", "fake-model", "--option", "source=x"],
            "'source' is no option of a backbone that may be set",
        ),
        (["train", *settings(), "--set", "backbone.dtype=bfloat16"], "backbone 'fake' has no option 'dtype'"),
    ],
)
def test_values_that_mean_nothing_are_one_line(arguments: list[str], message: str, photos: Path) -> None:
    """No traceback, and nothing written."""
    assert message in refused(*arguments)
    assert not Path("images").exists()


def test_a_warning_is_a_line_without_the_place_in_the_code(tmp_path: Path) -> None:
    """As an error is one; in Python it keeps its place."""
    words = ["train", "--set", "model=tiny-sd3", "--set", "dataset.name=sample-photos"]
    words += [
        "--set",
        "training.steps=1",
        "--set",
        'dataset.options.names=["astronaut","coffee","chelsea"]',
        "--set",
        f"output_dir={tmp_path}/run",
    ]
    sizes = ["--set", "data.width=320", "--set", "data.height=320"]
    command = [sys.executable, "-m", "d4k", *words, *sizes]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    (line,) = [line for line in ended.stderr.splitlines() if "left out" in line]
    assert line.startswith("warning: 1 of 3 pictures are left out")
    assert "UserWarning" not in ended.stderr
