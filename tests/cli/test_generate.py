"""`d4k generate` in stages and from a picture: what it writes, what it repeats, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from d4k import Pipeline
from d4k.cli import main
from d4k.images import picture_size, read_recipe

FAKE = ("--model", "fake-model", "--device", "cpu", "--steps", "2")
STAGED = (*FAKE, "--stages", "8,16,32", "--restart", "0.9,0.6")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_plugin: None, photos: Path) -> None:
    monkeypatch.chdir(tmp_path)


def d4k(*arguments: str | Path) -> Result:
    """Run a command in this process; what is not a D4KError is raised."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False, prog_name="d4k")


def done(*arguments: str | Path) -> Result:
    """A command that ends well."""
    result = d4k(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*arguments: str | Path) -> str:
    """The one line that a command fails with; exit code 2, and no file."""
    before = sorted(Path().rglob("*"))
    result = d4k(*arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 2, result.output
    assert len(lines) == 1, result.stderr
    assert sorted(Path().rglob("*")) == before
    return lines[0]


def pixels(file: str) -> Any:
    with Image.open(file) as image:
        return np.asarray(image)


class TestStages:
    """`--stages` and what goes with it."""

    def test_picture_is_the_one_of_python(self) -> None:
        """Every option arrives; a list has one value a stage."""
        given = ("--guidance", "1.5", "--shift", "2,scheduler,3", "--alignment", "0.2", "--cutoff", "0.5", "--upscaler")
        done("generate", "a cat", *STAGED, *given, "bicubic", "--seed", "3", "--output", "a.png")
        pipe = Pipeline.from_pretrained("fake-model", device="cpu")
        wanted = {"stages": "8,16,32", "restart": [0.9, 0.6], "steps": 2, "guidance": 1.5, "seed": 3}
        more = {"shift": [2.0, "scheduler", 3.0], "alignment": 0.2, "cutoff": 0.5, "upscaler": "bicubic"}
        pipe.generate_to("b.png", ["a cat"], **wanted, **more)
        assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
        recipe = read_recipe(Path("a.png"))
        assert [stage["shift"] for stage in recipe["earlier"]] + [recipe["shift"]] == [2.0, "scheduler", 3.0]
        assert [stage["restart"] for stage in recipe["earlier"]] + [recipe["restart"]] == [1.0, 0.9, 0.6]
        assert (recipe["width"], recipe["height"], recipe["upscaler"]) == (32, 32, "bicubic")

    def test_stages_of_a_width_and_height(self) -> None:
        """At the aspect that is asked for, or each as it is written; `auto` begins at the model's own size."""
        done("generate", "a", *FAKE, "--stages", "auto", "--width", "48", "--height", "32", "--output", "a.png")
        done("generate", "a", *FAKE, "--stages", "16x8,32x16", "--output", "b.png")
        for file, earlier, size in (("a.png", (20, 12), (48, 32)), ("b.png", (16, 8), (32, 16))):
            recipe = read_recipe(Path(file))
            assert (recipe["earlier"][0]["width"], recipe["earlier"][0]["height"]) == earlier
            assert pixels(file).shape[:2] == size[::-1]

    def test_stages_are_kept_when_asked_for(self) -> None:
        """Each below the name of its picture, or beside a file."""
        done("generate", "a", *STAGED, "--keep-stages", "--output", "out")
        done("generate", "a", *STAGED, "--keep-stages", "--output", "b.png")
        names = [
            f"{folder}/{side}x{side}.png" for folder in ("b-stages", "out/stages/0000-a-seed0") for side in (16, 8)
        ]
        assert sorted(str(path) for path in Path().rglob("*x*.png")) == sorted(names)
        assert pixels("b-stages/16x16.png").shape == (16, 16, 3)
        assert Path(names[0]).read_bytes() == Path(names[2]).read_bytes()

    def test_option_of_stages_without_any_warns(self) -> None:
        """The picture is made."""
        with pytest.warns(UserWarning, match="no stage is kept: each picture is sampled in one; ask for several"):
            done("generate", "a", *FAKE, "--keep-stages", "--output", "b.png")
        assert Path("b.png").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--stages", "4096,1024"], "stages must grow, but 1024x1024 comes after 4096x4096"),
            (["--stages", "abc"], "a stage must be a side in pixels, such as 1024, or a size, such as 1024x768"),
            (["--stages", "0"], "a stage must be a side in pixels"),
            (["--stages", "8,,16"], "a stage must be a side in pixels"),
            (["--stages", "8,17"], "17 is not a multiple of 4; nearest: 16 or 20"),
            (["--stages", "8,16", "--restart", "2"], "restart must be a number above 0 and at most 1, got 2"),
            (["--stages", "8,16", "--restart", "0.5,0.5,0.5"], "restart has 3 values for 1 stage"),
            (["--stages", "8,16", "--guidance", "1,2,3"], "guidance has 3 values for 2 stages"),
            (["--stages", "8,16", "--alignment", "2"], "alignment must be a number of at least 0 and at most 1, got 2"),
            (["--upscaler", "lanczoss"], "unknown upscaler 'lanczoss'; did you mean 'lanczos'?"),
            (["--upscaler-option", "tile=3"], "upscaler 'lanczos' has no option 'tile'"),
            (["--strength", "0.5"], "--strength is of a picture to begin with, and none is given: name one with --im"),
            (["--image", "photos/0.png", "--strength", "0.5", "--restart", "0.5"], "give one of them"),
            (["--image", "photos/0.png", "--strength", "1.5"], "strength"),
            (["--image", "missing.png"], "picture missing.png does not exist; check the path"),
            (["--image", "photos/0.txt"], "picture photos/0.txt cannot be read as PNG, JPEG, WebP, TIFF or BMP"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, arguments: list[str], message: str) -> None:
        """And nothing is written."""
        assert message in refused("generate", "a", *FAKE, *arguments)

    @pytest.mark.parametrize("arguments", [("--steps", "2,x"), ("--guidance", "much"), ("--shift", "1,schedule")])
    def test_value_that_is_no_number(self, arguments: tuple[str, str]) -> None:
        """Click says so, as of every option."""
        result = d4k("generate", "a", *FAKE, *arguments)
        assert result.exit_code == 2
        assert "is not a" in result.stderr or "is neither a number nor the word scheduler" in result.stderr


class TestImage:
    """Image-to-image."""

    def test_strength_is_the_share_of_the_steps_that_are_taken(self) -> None:
        """Half of four steps leaves the two last noise levels, and less changes the picture less."""
        far = []
        for strength in ("0.25", "0.5", "0.75"):
            arguments = ("--model", "fake-model", "--device", "cpu", "--steps", "4", "--image", "photos/0.png")
            done("generate", "a", *arguments, "--strength", strength, "--output", f"{strength}.png")
            far.append(np.abs(pixels(f"{strength}.png") - pixels("photos/0.png").astype(float)).mean())
        assert far[0] < far[1] < far[2]
        assert read_recipe(Path("0.5.png"))["restart"] == pytest.approx(1 / 3, abs=1e-3)

    def test_size_is_that_of_the_picture(self) -> None:
        """To the nearest multiple of the granularity; of one side, the other follows."""
        Image.open("photos/0.png").resize((23, 19)).save("odd.png")
        for given, size in (((), (24, 20)), (("--width", "48"), (48, 40)), (("--width", "8", "--height", "8"), (8, 8))):
            output = f"{len(given)}.png"
            done("generate", "a", *FAKE, "--image", "odd.png", *given, "--output", output)
            assert pixels(output).shape[1::-1] == size

    def test_each_line_of_a_file_may_have_its_own(self) -> None:
        """That of the command is for those without."""
        rows = [{"text": "a", "image": "photos/1.png"}, {"text": "b"}]
        Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        done("generate", "--prompts", "p.jsonl", *FAKE, "--image", "photos/0.png", "--output", "out")
        recipes = [read_recipe(file) for file in sorted(Path("out").glob("*.png"))]
        assert [recipe["image"] for recipe in recipes] == ["photos/1.png", "photos/0.png"]
        Path("p.jsonl").write_text(json.dumps({"text": "a", "image": 5}))
        assert "line 1: image must be the path of a picture, got 5" in refused(
            "generate", "--prompts", "p.jsonl", *FAKE
        )

    def test_picture_that_has_changed_is_another_setting(self) -> None:
        """Its content counts, and not where it lies."""
        arguments = ("generate", "a", *FAKE, "--restart", "0.5", "--output", "out", "--image")
        done(*arguments, "photos/0.png")
        Path("moved.png").write_bytes(Path("photos/0.png").read_bytes())
        assert "1 of 1 pictures were there already" in done(*arguments, "moved.png").stderr
        assert "was generated with other settings: " in refused(*arguments, "photos/1.png")


class TestRecipe:
    """`--recipe` repeats pictures of every kind."""

    @pytest.mark.parametrize(
        "given",
        [
            STAGED,
            (*FAKE, "--image", "photos/0.png", "--strength", "0.5"),
            (*FAKE, "--image", "photos/0.png", "--stages", "auto", "--width", "48", "--restart", "0.6"),
            (*FAKE, "--image", "photos/0.png", "--restart", "1", "--alignment", "0.5"),
            (*FAKE, "--stages", "8,16", "--guidance", "1,2", "--shift", "2,scheduler", "--upscaler", "bicubic"),
        ],
    )
    def test_picture_is_repeated_with_all_that_made_it(self, given: tuple[str, ...]) -> None:
        """The files are equal, recipes included."""
        done("generate", "a cat", *given, "--seed", "4", "--output", "a.png")
        done("generate", "--recipe", "a.png", "--output", "b.png")
        assert Path("a.png").read_bytes() == Path("b.png").read_bytes()

    def test_what_is_given_beside_it_wins(self) -> None:
        """Stages, and values that are one for all stages."""
        done("generate", "a cat", *STAGED, "--guidance", "1,2,3", "--output", "a.png")
        done("generate", "--recipe", "a.png", "--stages", "8,24", "--output", "b.png")
        done("generate", "a cat", *FAKE, "--stages", "8,24", "--restart", "0.6", "--guidance", "3", "--output", "c.png")
        assert Path("b.png").read_bytes() == Path("c.png").read_bytes()
        done("generate", "--recipe", "a.png", "--restart", "0.5", "--output", "d.png")
        assert [stage["restart"] for stage in read_recipe(Path("d.png"))["earlier"]] == [1.0, 0.5]

    def test_stages_beside_it_make_the_picture_larger_at_its_aspect(self) -> None:
        """Sides, and sizes; `auto` leaves the size as it was."""
        done("generate", "a cat", *FAKE, "--width", "16", "--height", "8", "--output", "a.png")
        for number, (stages, size) in enumerate({"16,32": (32, 16), "16x16,24x24": (24, 24), "auto": (16, 8)}.items()):
            done("generate", "--recipe", "a.png", "--stages", stages, "--output", f"{number}.png")
            assert picture_size(Path(f"{number}.png")) == size
        done("generate", "--recipe", "0.png", "--stages", "AUTO", "--output", "auto.png")
        assert picture_size(Path("auto.png")) == (32, 16)

    def test_picture_beside_stages_that_began_with_noise_restarts_as_the_next_stage(self) -> None:
        """The recipe has no restart of a first stage that begins with a picture."""
        done("generate", "a cat", *STAGED, "--output", "a.png")
        with pytest.warns(UserWarning, match="what does not fit is cut off"):
            done("generate", "--recipe", "a.png", "--image", "photos/0.png", "--output", "b.png")
        before, after = (read_recipe(Path(file))["earlier"] for file in ("a.png", "b.png"))
        assert before[0]["restart"] == 1.0
        assert [stage["restart"] for stage in after] == [before[1]["restart"], before[1]["restart"]]

    @pytest.mark.parametrize("change", ["missing", "changed"])
    def test_picture_that_it_was_made_from_must_be_there(self, change: str) -> None:
        """The line says which, and what to do; then it is repeated."""
        done("generate", "a", *FAKE, "--image", "photos/0.png", "--restart", "0.5", "--output", "a.png")
        Path("photos/0.png").rename("moved.png")
        if change == "changed":
            Path("photos/1.png").rename("photos/0.png")
        said = "which is not there" if change == "missing" else "which has changed since"
        message = f"error: a.png was made from photos/0.png, {said}; name that picture with --image"
        assert refused("generate", "--recipe", "a.png", "--output", "b.png") == message
        done("generate", "--recipe", "a.png", "--image", "moved.png", "--output", "b.png")
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
