"""The options of the command line that say where a model comes from and where it is held."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from d4k import Loading, ModelRef, Pipeline, planning
from d4k.cli import main
from d4k.images import read_recipe
from d4k.machine import choose_device


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def generate(*arguments: str) -> Result:
    small = ("--width", "64", "--height", "64", "--steps", "1", "--device", "cpu", "--output", "a.png")
    return CliRunner().invoke(main, ["generate", "a cat", *small, *arguments], catch_exceptions=False)


def test_options_reach_the_model_and_the_recipe() -> None:
    """The picture is that of the same words in Python."""
    denoiser = Path(Pipeline.from_pretrained("tiny-flux", device="cpu").backbone.source) / "transformer"
    words = {"transformer": str(denoiser), "quantize": "int8", "step_cache": "first-block:0.1", "attention": "native"}
    result = generate(
        "--model", "tiny-flux", "--dtype", "bfloat16", "--memory-gb", "2",
        *(part for name, value in words.items() for part in (f"--{name.replace(chr(95), chr(45))}", value)),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    recipe = read_recipe(Path("a.png"))
    assert recipe is not None
    assert {name: recipe[name] for name in ("dtype", *words)} == {"dtype": "bfloat16", **words}
    pipe = Pipeline.from_pretrained("tiny-flux", device="cpu", dtype="bfloat16", **words)
    picture = pipe.generate("a cat", width=64, height=64, steps=1)[0]
    assert np.array_equal(np.asarray(picture), np.asarray(Image.open("a.png")))


def test_low_memory_says_what_it_picked_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line a pick; what the user chose stays."""
    monkeypatch.setattr(planning, "measure", lambda device: planning.Machine("cpu", 1, 1))
    result = generate("--low-memory", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    told = [line for line in result.stderr.splitlines() if line.startswith("low memory: ")]
    assert told[0] == "low memory: dtype float32, as given"
    assert told[1].startswith("low memory: offload disk: 0.0 GB of weights do not fit; reads them layer by layer")
    recipe = read_recipe(Path("a.png"))
    assert recipe is not None
    assert recipe["dtype"] == "float32"
    assert "offload" not in recipe, "pixels do not depend on it"


def test_what_cannot_be_had_is_one_line() -> None:
    """Exit code 2, and what to do."""
    result = generate("--offload", "model")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: offload='model' keeps weights in CPU memory while an accelerator computes")


def test_training_takes_its_base_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Revision, variant and transformer define a run; memory for the autoencoder belongs to the machine."""
    seen = {}

    class Stop(Exception):
        """Far enough."""

    def load(ref: ModelRef, loading: Loading) -> None:
        seen.update(ref.files | attrs.asdict(loading))
        raise Stop

    monkeypatch.setattr(sys.modules["d4k.training.fine_tune"], "load_model", load)
    words = [
        "model=tiny-sd3",
        "dataset.name=sample-photos",
        "output_dir=run",
        "transformer=my.safetensors",
        "variant=fp16",
    ]
    with pytest.raises(Stop):
        CliRunner().invoke(
            main,
            ["train", "--memory-gb", "3", *(part for word in words for part in ("--set", word))],
            catch_exceptions=False,
        )
    expected = {
        "device": str(choose_device()),
        "dtype": "float32",
        "variant": "fp16",
        "transformer": "my.safetensors",
        "memory_gb": 3.0,
    }
    assert {name: value for name, value in seen.items() if value not in (None, False)} == expected
