"""Validation while training: it changes nothing, is neither repeated nor missed, and measures what it says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from attrs import evolve
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from d4k import FlowStep, Pipeline, Placement
from d4k.datasets import FolderDataset
from d4k.errors import ConfigError
from d4k.images import open_picture, read_recipe, to_tensor
from d4k.models import Model, ModelRef, RunFolder
from d4k.seeds import numbered_seed
from d4k.training import MSELoss, train
from d4k.training.engine import make_engine
from d4k.training.held_out import HeldOut, HeldOutLosses, read_held_out_losses
from d4k.training.sheets import Column, Row, contact_sheet, spread, thumbnail
from d4k.training.validation import Validation
from d4k.training.validation_pictures import SamplePictures

Config = Callable[..., Any]
CPU = torch.device("cpu")
KNOWN = Model(ModelRef("fake-model"), "fake", "fake-model")
LOOKS = {"every": 2, "prompts": ["a red square", "a blue circle"], "seeds": 2, "steps": 2}

pytestmark = pytest.mark.usefixtures("fake_plugin")


@pytest.fixture
def dataset(photos: Path) -> FolderDataset:
    """Five captioned pictures."""
    return FolderDataset(photos)


@pytest.fixture
def fresh(backbone: Any) -> Callable[[], Any]:
    """`fresh()`: another backbone with the same weights as at the start."""

    def make() -> Any:
        result = type(backbone)()
        result.load(Placement(CPU, torch.float32))
        return result

    return make


class Stop(Exception):
    """An interruption from outside."""


def stop_at(last: int) -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        if step == last:
            raise Stop

    return on_step


def files(folder: Path) -> dict[str, bytes]:
    """All that validation left, but for the plot, in which matplotlib writes its version."""
    kept = sorted(path for path in (folder / "validation").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def looked(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "validation").glob("step-*"))


def weights(backbone: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.trainable.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("sections", [{}, {"adapter": {"rank": 2, "targets": ["into", "out"], "dropout": 0.5}}])
def test_looking_changes_nothing_of_a_run(fresh: Any, dataset: Any, run_config: Config, sections: Any) -> None:
    """Losses and weights are bit-identical with and without, also in half precision, with dropout and an average."""
    results: list[Any] = []
    training = {"steps": 6, "accumulation": 2, "precision": "bf16", "gradient_checkpointing": True}
    held = {"holdout": 2}
    for name, looks in enumerate([LOOKS | {"every": 1}, None, LOOKS | held | {"every": 1}, held | {"every": 99}]):
        backbone = fresh()
        given = sections if looks is None else {"validation": looks, **sections}
        config = run_config(str(name), training=training, ema={"decay": 0.5}, **given)
        run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
        results.append((run.losses, weights(backbone)))
    for one, other in (results[:2], results[2:]):
        assert one[0] == other[0]
        assert same(one[1], other[1])


def test_a_look_leaves_modes_gradients_and_random_state_alone(backbone: Any, run_config: Config) -> None:
    """Whatever they were, layer by layer."""
    config = run_config(validation=LOOKS)
    module = backbone.trainable
    module.train()
    module.out.eval()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    state, decode = torch.random.get_rng_state(), backbone.decode
    backbone.decode = lambda latent: decode(latent + 0 * torch.rand(1))  # a model that draws numbers itself
    validation = Validation(make_engine(config, CPU), backbone, MSELoss(), config, model=KNOWN)
    validation.look(0, lambda *said: None)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (module.training, module.into.training, module.out.training) == (True, True, False)
    assert all(bool((parameter.grad == 1).all()) for parameter in module.parameters())
    assert backbone.trainable is module


def test_a_run_is_looked_at_before_between_and_after(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Pictures with their recipes for each step, one sheet, and TensorBoard has them too."""
    config = run_config(training={"steps": 5}, validation=LOOKS)
    run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
    assert looked(run.output_dir) == [f"step-{step:08d}" for step in (0, 2, 4, 5)]
    pictures = sorted((run.output_dir / "validation" / "step-00000004").glob("*.png"))
    assert [path.stem for path in pictures] == [
        "0000-a-red-square-seed0", "0001-a-red-square-seed1", "0002-a-blue-circle-seed0", "0003-a-blue-circle-seed1",
    ]  # fmt: skip
    recipe = read_recipe(pictures[3])
    assert (recipe["prompt"], recipe["seed"], recipe["steps"], recipe["step"]) == ("a blue circle", 1, 2, 4)
    events = EventAccumulator(str(run.output_dir / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [one.step for one in events.Images(f"validation/{pictures[0].stem}")] == [0, 2, 4, 5]


def test_a_validation_picture_is_what_the_model_generates(backbone: Any, dataset: Any, run_config: Config) -> None:
    """After the last step, the same prompt and seed give the same pixels through the pipeline."""
    config = run_config(validation=LOOKS | {"every": 100, "guidance": 3.0}, ema={"decay": 0.5})
    run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
    picture = run.output_dir / "validation" / "step-00000004" / "0001-a-red-square-seed1.png"
    (again,) = Pipeline.from_pretrained(str(run.model)).generate("a red square", seed=1, steps=2, guidance=3.0)
    assert torch.equal(to_tensor(open_picture(picture)), to_tensor(again))


def test_the_average_is_looked_at_and_saved(fresh: Any, dataset: Any, run_config: Config) -> None:
    """With `ema.save` the saved model, and the one in memory, are the average that the checkpoint has."""
    from safetensors.torch import load_file

    for save in (True, False):
        config = run_config(f"save {save}", training={"steps": 5}, ema={"decay": 0.8, "save": save})
        backbone = fresh()
        run = train(backbone, dataset, MSELoss(), config, model=KNOWN)
        state = RunFolder(run.output_dir).state(5)
        average, trained = load_file(state / "ema.safetensors"), load_file(state / "trainable.safetensors")
        assert not same(average, trained)
        assert same(weights(backbone), average if save else trained)
        assert same(load_file(run.model / "denoiser.safetensors"), average if save else trained)
        card = json.loads((run.model / "d4k.json").read_text())
        assert card["training"].get("ema") == (0.8 if save else None)


@pytest.mark.parametrize("stop", [3, 5])
def test_resuming_neither_repeats_nor_misses_a_look(
    fresh: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Wherever it stopped, all that validation keeps ends up byte for byte as in a run that did not stop."""
    looks = LOOKS | {"holdout": 2}
    config = run_config("whole", training={"steps": 6, "save_every": 3}, validation=looks, ema={"decay": 0.5})
    whole = train(fresh(), dataset, MSELoss(), config, model=KNOWN)
    parts = evolve(config, output_dir=str(Path(config.output_dir).parent / "parts"))
    with pytest.raises(Stop):
        train(fresh(), dataset, MSELoss(), parts, model=KNOWN, on_step=stop_at(stop))
    saved, asked = stop // 3 * 3, []
    before = {name for name in looked(Path(parts.output_dir)) if int(name[5:]) <= saved}
    measure = SamplePictures.measure
    monkeypatch.setattr(SamplePictures, "measure", lambda self, *given: asked.append(1) or measure(self, *given))
    run = train(fresh(), dataset, MSELoss(), parts, model=KNOWN, resume=True)
    assert run.losses == whole.losses
    assert len(asked) == 4 * (4 - len(before))
    mine, others = files(run.output_dir), files(whole.output_dir)
    assert mine.keys() == others.keys()
    different = {name for name in mine if mine[name] != others[name]}
    assert different <= {name for name in mine if name.endswith(".png")}
    for name in different:  # the recipe and the title name the folder
        if "step-" in name:
            one, other = (to_tensor(open_picture(each.output_dir / name)) for each in (run, whole))
            assert torch.equal(one, other)


@attrs.frozen
class Seen:
    """A loss that says what it was asked."""

    steps: list[FlowStep] = attrs.field(factory=list)

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        self.steps.append(step)
        return MSELoss()(velocity, step)


def held_out_losses(backbone: Any, config: Any, loss: Any, dataset: Any) -> HeldOutLosses:
    held = [
        HeldOut(torch.randn(1, 12, 8, 8, generator=torch.Generator().manual_seed(n)), backbone.encode_text([f"{n}"]))
        for n in range(2)
    ]
    return HeldOutLosses(make_engine(config, CPU), backbone, loss, config, held, RunFolder(Path(config.output_dir)))


def test_held_out_losses_are_those_of_fixed_noise_at_fixed_levels(
    backbone: Any, dataset: Any, run_config: Config
) -> None:
    """Recomputed from the definition: mean over the pictures at each sigma, and over the sigmas."""
    config = run_config(validation={"holdout": 2, "seed": 7, "sigmas": [0.2, 0.8]})
    part = held_out_losses(backbone, config, MSELoss(), dataset)
    with torch.no_grad():
        figures, pictures = part.keep(3, {index: part.measure(index, lambda: None) for index in (1, 0)})
        expected = np.zeros((2, 2))
        for index, held in enumerate(part.held_out):
            for place, sigma in enumerate((0.2, 0.8)):
                seed = numbered_seed(7, "validation noise", 2 * index + place)
                noise = torch.randn(held.clean.shape, generator=torch.Generator().manual_seed(seed))
                noisy = (1 - sigma) * held.clean + sigma * noise
                said = backbone.trainable(noisy, torch.tensor([sigma]), held.conditioning.tensors["text"])
                expected[index, place] = float((said - (noise - held.clean)).square().mean())
    assert figures["validation/loss"] == pytest.approx(expected.mean(), rel=1e-5)
    assert figures["validation/loss at sigma 0.8"] == pytest.approx(expected[:, 1].mean(), rel=1e-5)
    (row,) = read_held_out_losses(Path(config.output_dir))
    assert (row["step"], row["pictures"], list(row["sigmas"])) == (3, 2, ["0.2", "0.8"])
    assert row["sigmas"]["0.2"] == pytest.approx(expected[:, 0].mean(), rel=1e-5)
    assert pictures["validation/losses"].size[0] > 400
    assert part.seen(3)
    assert not part.seen(4)
    part.forget(2)
    assert read_held_out_losses(Path(config.output_dir)) == []


def test_a_held_out_loss_that_is_not_finite_leaves_a_gap(backbone: Any, dataset: Any, run_config: Config) -> None:
    """The run goes on, and what is kept can be read: JSON has no NaN."""
    config = run_config(validation={"holdout": 2, "sigmas": [0.2, 0.8]})
    part = held_out_losses(backbone, config, MSELoss(), dataset)
    figures, _ = part.keep(3, {0: [1.0, float("nan")], 1: [3.0, float("inf")]})
    assert figures == {"validation/loss at sigma 0.2": 2.0}
    (row,) = read_held_out_losses(Path(config.output_dir))
    assert (row["loss"], row["sigmas"]) == (None, {"0.2": 2.0, "0.8": None})
    assert part.seen(3)
    part.keep(6, {0: [1.0, 2.0], 1: [3.0, 4.0]})
    assert [each["loss"] for each in read_held_out_losses(Path(config.output_dir))] == [None, 2.5]


def test_noise_of_held_out_pictures_is_the_same_every_time(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Two measurements of the same weights are equal; other weights are measured with the same noise."""
    loss = Seen()
    part = held_out_losses(backbone, run_config(validation={"holdout": 2}), loss, dataset)
    with torch.no_grad():
        first = part.measure(0, lambda: None)
        assert part.measure(0, lambda: None) == first
        backbone.trainable.out.bias.add_(1)
        assert part.measure(0, lambda: None) != first
    assert torch.equal(loss.steps[0].noise, loss.steps[10].noise)
    assert not torch.equal(loss.steps[0].noise, loss.steps[1].noise)


def test_a_stop_is_heard_within_a_picture(backbone: Any, run_config: Config) -> None:
    """Nothing is kept of a look that was cut short, and the next one does it again."""
    config = run_config(validation=LOOKS)
    run = RunFolder(Path(config.output_dir))
    validation = Validation(make_engine(config, CPU), backbone, MSELoss(), config, model=KNOWN)
    asked: list[int] = []
    shown: list[int] = []

    def show(step: int, *said: Any) -> None:
        shown.append(step)

    validation.look(0, show, stopped=lambda: asked.append(1) or len(asked) == 2)
    assert (len(asked), shown, looked(run.path)) == (2, [], [])
    validation.look(0, show)
    assert (shown, looked(run.path)) == ([0], ["step-00000000"])
    validation.look(0, show)
    validation.look(1, show)
    assert shown == [0]


def test_a_picture_that_cannot_be_sampled_is_missing_and_named(backbone: Any, run_config: Config) -> None:
    """Training goes on: the sheet has an empty cell."""
    config = run_config(validation={**LOOKS, "prompts": ["a red square"], "seeds": 1})
    run = RunFolder(Path(config.output_dir))
    validation = Validation(make_engine(config, CPU), backbone, MSELoss(), config, model=KNOWN)
    with torch.no_grad():
        backbone.trainable.out.bias.fill_(math.nan)
    with pytest.warns(
        UserWarning, match="step 0 has no picture of 'a red square': sampling gave values that are no numbers"
    ):
        validation.look(0, lambda *said: None)
    assert not list((run.validation / "step-00000000").glob("*.png"))
    assert (run.validation / "pictures.png").is_file()


def test_pictures_of_other_settings_are_not_taken_for_these(backbone: Any, run_config: Config) -> None:
    """A run that is begun anew in the same folder with other prompts, steps or noise levels looks again."""
    one = run_config(validation=LOOKS | {"holdout": 1})
    others = [{"prompts": ["a cat"]}, {"steps": 3}, {"seed": 5}, {"sigmas": [0.4]}]
    held = [HeldOut(torch.zeros(1, 12, 8, 8), backbone.encode_text(["x"]))]
    shown: list[int] = []
    for config in [one, one, *(evolve(one, validation=evolve(one.validation, **other)) for other in others)]:
        validation = Validation(make_engine(config, CPU), backbone, MSELoss(), config, held, KNOWN)
        validation.begin(0)
        validation.look(0, lambda step, figures, pictures: shown.append(len(figures) + len(pictures)))
    assert shown == [4, 7, 2, 4, 4, 7, 4, 3]
    assert len(read_held_out_losses(Path(one.output_dir))) == 1


def test_prompts_are_encoded_before_the_steps(backbone: Any, run_config: Config) -> None:
    """A look needs no text encoder, which may be released by then."""
    config = run_config(validation=LOOKS)
    run = RunFolder(Path(config.output_dir))
    validation = Validation(make_engine(config, CPU), backbone, MSELoss(), config, model=KNOWN)
    backbone.encode_text = None
    validation.look(0, lambda *said: None)
    assert looked(run.path) == ["step-00000000"]


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ({}, "looks at nothing"),
        ({"prompts": ["a cat"], "width": 17}, "width 17 is not a multiple of 4"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_first(
    backbone: Any, dataset: Any, run_config: Config, looks: Any, said: str
) -> None:
    """Before the folder of the run holds a step."""
    with pytest.raises(ConfigError, match=said):
        train(backbone, dataset, MSELoss(), run_config(validation=looks), model=KNOWN)


def test_columns_of_a_sheet_are_spread_evenly() -> None:
    """The first and the last are among them."""
    for count in range(1, 60):
        chosen = spread(count, 7)
        assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, min(count, 7))
        gaps = np.diff(chosen)
        assert count == 1 or (gaps.min() >= 1 and gaps.max() - gaps.min() <= 1)


def test_a_sheet_has_equal_cells_in_the_order_of_rows_and_columns(tmp_path: Path) -> None:
    """Each picture is found where its row and column say, whole and unscaled; the rest is white, text or frame."""
    colors = {(row, column): (40 * row + 60, 60 * column + 30, 200) for row in range(2) for column in range(3)}
    for place, color in colors.items():
        Image.new("RGB", (100, 80), color).save(tmp_path / f"{place}.png")
    columns = [Column(f"step {c}", [tmp_path / f"{(r, c)}.png" for r in range(2)]) for c in range(3)]
    columns.append(Column("step 3", [None, None]))
    sheet = np.array(contact_sheet("run", [Row("a", "seed 0"), Row("word " * 200)], columns))
    corners = {}
    for place, color in colors.items():
        rows, cells = np.nonzero((sheet == color).all(-1))
        assert (np.ptp(rows), np.ptp(cells), len(rows)) == (79, 99, 8000)
        corners[place] = (int(rows.min()), int(cells.min()))
    assert len({corners[0, c][0] for c in range(3)}) == 1
    assert len({corners[r, 1][1] for r in range(2)}) == 1
    assert corners[0, 2][1] - corners[0, 1][1] == corners[0, 1][1] - corners[0, 0][1] == 110
    below = sheet[corners[1, 0][0] + 80 :, : corners[0, 0][1]]
    assert (below == 255).all()  # a long prompt ends with its row
    assert (sheet[:, corners[0, 0][1] - 10 : corners[0, 0][1]][corners[0, 0][0] :] == 255).all()


def test_a_picture_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    """Also under its old name."""
    path = tmp_path / "a.png"
    for color in ("red", "blue"):
        path.unlink(missing_ok=True)
        Image.new("RGB", (8, 8), color).save(path)
        assert thumbnail(path).getpixel((0, 0)) == Image.new("RGB", (1, 1), color).getpixel((0, 0))
