"""`d4k upscale`: pictures and folders of them, enlarged and refined, or enlarged alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from d4k import Pipeline
from d4k.cli import main
from d4k.images import read_recipe

FAKE = ("--model", "fake-model", "--device", "cpu", "--steps", "2")


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


def pixels(file: str | Path) -> Any:
    with Image.open(file) as image:
        return np.asarray(image)


def test_picture_is_generated_from_in_stages_of_twice_the_size() -> None:
    """None is nearly as large as the last; it is the picture that `d4k generate` makes with these settings."""
    done("upscale", "photos/0.png", "--size", "56", *FAKE, "--restart", "0.5", "--prompt", "a", "--output", "a.png")
    recipe = read_recipe(Path("a.png"))
    assert "earlier" not in recipe
    assert pixels("a.png").shape == (48, 56, 3)
    done("upscale", "photos/0.png", "--size", "64x52", *FAKE, "--restart", "0.5", "--prompt", "a", "--output", "b.png")
    recipe = read_recipe(Path("b.png"))
    assert [(stage["width"], stage["height"]) for stage in recipe["earlier"]] == [(48, 40)]
    given = ("--image", "photos/0.png", "--stages", "48x40,64x52", "--restart", "0.5", "--output", "c.png")
    done("generate", "a", *FAKE, *given)
    assert Path("b.png").read_bytes() == Path("c.png").read_bytes()
    assert recipe["image"] == "photos/0.png"


def test_folder_of_pictures_is_gone_on_with() -> None:
    """What is there is kept; each picture's name is in that of its result."""
    Path("photos/4.png").rename("later.png")
    arguments = ("upscale", "photos", "later.png", "--size", "48", *FAKE)
    done("upscale", "photos", "--size", "48", *FAKE)
    files = done(*arguments).stdout.split()
    assert files == ["upscaled/0004-later-seed0.png"]
    names = ["0000-0-seed0.png", "0001-1-seed0.png", "0002-2-seed0.png", "0003-3-seed0.png", "0004-later-seed0.png"]
    assert sorted(path.name for path in Path("upscaled").glob("*.png")) == names


def test_prompt_is_that_of_the_picture_if_d4k_generated_it() -> None:
    """Else empty; what is given wins."""
    done("generate", "a cat", *FAKE, "--width", "16", "--height", "16", "--output", "cat.png")
    for file, given, prompt in (
        ("cat.png", (), "a cat"), ("photos/0.png", (), ""), ("cat.png", ("--prompt", "a dog"), "a dog"),
    ):  # fmt: skip
        output = f"{len(prompt)}.png"
        Path(output).unlink(missing_ok=True)
        done("upscale", file, "--size", "32", *FAKE, *given, "--output", output)
        assert read_recipe(Path(output))["prompt"] == prompt


def test_without_refining_it_is_the_upscaler_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded; the picture is Pillow's own, and a recipe says how it was made."""
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: pytest.fail("a model was loaded"))
    done("upscale", "photos/0.png", "--size", "50x41", "--no-refine", "--device", "cpu", "--output", "a.png")
    with Image.open("photos/0.png") as image:
        wanted = image.resize((50, 41), Image.Resampling.LANCZOS)
    assert np.array_equal(pixels("a.png"), np.asarray(wanted))
    recipe = read_recipe(Path("a.png"))
    assert {name: recipe[name] for name in ("image", "upscaler", "width", "height")} == {
        "image": "photos/0.png", "upscaler": "lanczos", "width": 50, "height": 41,
    }  # fmt: skip
    said = refused("upscale", "photos/0.png", "--size", "20000000", "--no-refine", "--device", "cpu")
    assert "a picture of 20000000x16666667 pixels takes at least 5,000,000.1 GB" in said
    said = refused("generate", "--recipe", "a.png", "--output", "c.png")
    assert "a.png was enlarged without a model, from photos/0.png: repeat it with d4k upscale --no-refine" in said
    with pytest.warns(UserWarning, match="--no-refine loads no model, so that --steps, --model count for nothing"):
        done("upscale", "photos/0.png", "--size", "48", "--no-refine", *FAKE, "--output", "b.png")


def test_picture_of_another_mode_is_read_as_everywhere() -> None:
    """CMYK, and transparency on white; a picture that lies on its side is turned upright."""
    Image.new("CMYK", (16, 8)).save("a.jpg")
    Image.new("RGBA", (16, 8), (0, 0, 0, 0)).save("b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save("c.jpg", exif=exif)
    for file, shape in (("a.jpg", (16, 32, 3)), ("b.png", (16, 32, 3)), ("c.jpg", (32, 16, 3))):
        done("upscale", file, "--size", "32", "--no-refine", "--device", "cpu", "--output", f"{file}.png")
        assert pixels(f"{file}.png").shape == shape
    assert pixels("b.png.png").min() == 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "16"], "--size 16 is smaller than photos/0.png, which has 24x20; give a larger one"),
        (["--size", "48x16"], "--size 48x16 is smaller than photos/0.png, which has 24x20; give a larger one"),
        (["--size", "50"], "width 50 is not a multiple of 4; nearest: 48 or 52"),
        (["--size", "large"], "a stage must be a side in pixels"),
        (["--size", "48", "photos/0.txt"], "picture photos/0.txt cannot be read as PNG, JPEG, WebP, TIFF or BMP"),
        (["--size", "48", "photos/none.png"], "picture photos/none.png does not exist; check the path"),
        (["--size", "48", "--upscaler", "nope"], "unknown upscaler 'nope'"),
        (["--size", "48", "--strength", "0.5", "--restart", "0.5"], "give one of them"),
        (["--size", "48", "--stages", "32,40"], "the last of the stages is"),
        (["--size", "48", "--output", "photos"], "--output photos is the folder of the pictures themselves"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], message: str) -> None:
    """And nothing is written."""
    assert message in refused("upscale", "photos/0.png", *FAKE, *arguments)


def test_it_needs_a_picture() -> None:
    """One line, as of the prompt."""
    assert "no picture was given; name files, or folders of pictures" in refused("upscale", "--size", "48")
