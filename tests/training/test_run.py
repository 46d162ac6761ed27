"""Fine-tuning: exact under interruption, accumulation and batching; whole checkpoints; errors that say what to do."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from d4k import FlowStep, Placement
from d4k.config import read_toml
from d4k.errors import CheckpointError, ConfigError, D4KError, OutputError
from d4k.flow import sigma_weight
from d4k.models import CARD, Model, ModelRef, RunFolder
from d4k.training import Encoding, Feed, MSELoss, choose_pictures, read_losses, train

KNOWN = Model(ModelRef("fake-model"), "fake", "", options={"seed": 0})

Config = Callable[..., Any]
CPU = torch.device("cpu")


class Broken:
    """A loss that is not finite in some of its calls, counted from 1."""

    def __init__(self, value: float, calls: set[int]) -> None:
        self.value, self.calls, self.called = value, calls, 0

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        self.called += 1
        return MSELoss()(velocity, step) * (self.value if self.called in self.calls else 1.0)


def weights(backbone: Any) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in backbone.trainable.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


class Stop(Exception):
    """An interruption from outside."""


def stop_at(last: int) -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        if step == last:
            raise Stop

    return on_step


def test_loss_falls_and_weights_change(backbone: Any, dataset: Any, run_config: Config) -> None:
    """A hundred steps on five pictures fit them better."""
    before = weights(backbone)
    config = run_config(training={"steps": 100, "batch_size": 5}, optimizer={"lr": 1e-2})
    run = train(backbone, dataset, MSELoss(), config)
    assert sum(run.losses[-20:]) < 0.8 * sum(run.losses[:20])
    assert not same(before, weights(backbone))
    assert backbone.trainable.training is False


def test_run_leaves_its_record(backbone: Any, dataset: Any, run_config: Config, tmp_path: Path) -> None:
    """Resolved configuration, losses, TensorBoard events, a checkpoint every N steps and the model; nothing else."""
    seen: list[tuple[int, float]] = []
    config = run_config(training={"steps": 5, "save_every": 2}, schedule={"name": "linear"})
    run = train(
        backbone,
        dataset,
        MSELoss(),
        config,
        model=KNOWN,
        on_step=lambda *x: seen.append(x),
    )
    folder = tmp_path / "run"
    assert sorted(p.name for p in folder.iterdir()) == [
        "checkpoints",
        "config.toml",
        "losses.jsonl",
        "model",
        "tensorboard",
    ]
    assert read_toml(folder / "config.toml")["training"]["save_every"] == 2
    rows = read_losses(folder)
    assert [list(row) for row in rows] == [["step", "loss", "gradient_norm", "lr", "seconds"]] * 5
    assert [row["lr"] for row in rows] == pytest.approx([1e-4, 8e-5, 6e-5, 4e-5, 2e-5])
    assert [(row["step"], row["loss"]) for row in rows] == seen == list(enumerate(run.losses, 1))
    assert all(row["gradient_norm"] > 0 for row in rows)
    names = [f"step-{step:08d}" for step in (4, 5)]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == names
    assert list((folder / "tensorboard").rglob("events.out.tfevents.*"))
    assert json.loads((folder / "model" / CARD).read_text()) == {
        "format": 1, "backbone": "fake", "options": {"seed": 0}, "training": {"width": 16, "height": 16},
    }  # fmt: skip
    assert (run.output_dir, run.steps, run.model) == (folder, 5, folder / "model")


def test_saved_model_is_the_trained_one(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Loading `run.model` gives the weights in memory, bit by bit."""
    run = train(backbone, dataset, MSELoss(), run_config())
    again = type(backbone)(str(run.model))
    again.load(Placement(CPU, torch.float32))
    assert same(weights(again), weights(backbone))


def test_equal_settings_give_equal_weights(fresh: Any, dataset: Any, run_config: Config) -> None:
    """A run is a function of its configuration; another seed is another run."""
    results: list[Any] = []
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        backbone = fresh()
        torch.manual_seed(len(results))  # nothing depends on the global generator
        train(backbone, dataset, MSELoss(), run_config(name, seed=seed))
        results.append(weights(backbone))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_resume_goes_on_after_a_line_that_was_cut(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Half a last line of `losses.jsonl` is left out, and rows after the checkpoint are replaced, not repeated."""
    config = run_config(training={"save_every": 2})
    with pytest.raises(Stop):
        train(fresh(), dataset, MSELoss(), config, on_step=stop_at(3))
    losses = Path(config.output_dir) / "losses.jsonl"
    losses.write_text(losses.read_text() + '{"step": 4, "lo')
    assert [row["step"] for row in read_losses(losses.parent)] == [1, 2, 3]
    run = train(fresh(), dataset, MSELoss(), config, resume=True)
    assert [row["step"] for row in read_losses(run.output_dir)] == [1, 2, 3, 4]


def test_finished_run_can_be_prolonged(fresh: Any, dataset: Any, run_config: Config) -> None:
    """`training.steps` and `training.save_every` may change on resuming; the record is brought up to date."""
    whole, parts = fresh(), fresh()
    expected = train(whole, dataset, MSELoss(), run_config("whole", training={"steps": 6}))
    train(parts, dataset, MSELoss(), run_config("parts", training={"steps": 3}))
    longer = run_config("parts", training={"steps": 6, "save_every": 5})
    run = train(parts, dataset, MSELoss(), longer, resume=True)
    assert run.losses == expected.losses
    assert same(weights(parts), weights(whole))
    assert read_toml(run.output_dir / "config.toml")["training"]["steps"] == 6


def test_resume_with_other_settings_names_them(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Every changed key is listed in full; the record is not touched."""
    run = train(fresh(), dataset, MSELoss(), run_config())
    before = (run.output_dir / "config.toml").read_text()
    changed = run_config(optimizer={"lr": 1e-3}, data={"width": 8}, loss={"name": "mse", "options": {"x": 1}})
    with pytest.raises(
        ConfigError, match=r"other settings than it began with: data\.width, loss\.options\.x, optimizer\.lr\."
    ):
        train(fresh(), dataset, MSELoss(), changed, resume=True)
    assert (run.output_dir / "config.toml").read_text() == before


def test_nothing_to_resume_is_said(backbone: Any, dataset: Any, run_config: Config, tmp_path: Path) -> None:
    """A folder without a run is not silently started in."""
    with pytest.raises(
        ConfigError, match=r"nothing to resume in .*run: it holds no run; start the run without --resume"
    ):
        train(backbone, dataset, MSELoss(), run_config(), resume=True)
    assert not (tmp_path / "run").exists()


def test_output_folder_in_use_is_refused(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Nothing is overwritten, nothing is computed."""
    config = run_config()
    Path(config.output_dir).mkdir()
    (Path(config.output_dir) / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="exists and is not empty"):
        train(backbone, dataset, MSELoss(), config, on_step=lambda *x: pytest.fail("it trained"))
    assert [p.name for p in Path(config.output_dir).iterdir()] == ["thesis.txt"]


def test_two_batches_of_one_are_one_batch_of_two(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Accumulation changes memory, not mathematics: same samples, same gradient, same step."""
    results, norms = [], []
    for name, batch_size, accumulation in [("two", 2, 1), ("accumulated", 1, 2)]:
        backbone = fresh()
        settings = {"steps": 3, "batch_size": batch_size, "accumulation": accumulation}
        run = train(backbone, dataset, MSELoss(), run_config(name, training=settings))
        results.append((weights(backbone), run.losses))
        norms.append([row["gradient_norm"] for row in read_losses(run.output_dir)])
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for name, tensor in results[0][0].items():
        torch.testing.assert_close(tensor, results[1][0][name], rtol=0, atol=1e-6)


def test_first_step_is_the_published_computation(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Mean over the batch of weight times loss of the predicted velocity; clipped gradient; one step of AdamW."""
    settings: dict[str, Any] = {"flow": {"weighting": "cosmap"}, "data": {"cache": "off"}}
    trained, config = fresh(), run_config(training={"steps": 1, "clip": 0.01}, **settings)
    run = train(trained, dataset, MSELoss(), config)
    other = fresh()
    batch = Feed(Encoding(other, dataset), choose_pictures(dataset, other, config), config, CPU).batch(0)
    level = batch.sigma[:, None, None, None]
    noisy = (1 - level) * batch.clean + level * batch.noise
    predicted = other.velocity(noisy, batch.sigma, batch.conditioning)
    errors = (predicted - (batch.noise - batch.clean)).square().mean((1, 2, 3))
    loss = (sigma_weight(batch.sigma, "cosmap") * errors).mean()
    loss.backward()
    parameters = list(other.trainable.parameters())
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.01)
    torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-4).step()
    assert run.losses == pytest.approx((loss.item(),), rel=1e-5)
    assert read_losses(run.output_dir)[0]["gradient_norm"] == pytest.approx(norm.item(), rel=1e-4)
    for name, tensor in weights(other).items():
        torch.testing.assert_close(weights(trained)[name], tensor, rtol=1e-4, atol=1e-7)


def test_clip_of_zero_does_not_clip(fresh: Any, dataset: Any, run_config: Config) -> None:
    """The norm is reported all the same; with a small largest norm the weights move otherwise."""
    free, clipped = fresh(), fresh()
    run = train(free, dataset, MSELoss(), run_config("free", training={"clip": 0}))
    train(clipped, dataset, MSELoss(), run_config("clipped", training={"clip": 1e-6}))
    assert all(row["gradient_norm"] > 1e-3 for row in read_losses(run.output_dir))
    assert not same(weights(free), weights(clipped))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_left_out(fresh: Any, dataset: Any, run_config: Config, value: float) -> None:
    """Weights and moments are those of a run whose loss is nothing at that step; the schedule goes on."""
    settings: dict[str, Any] = {"schedule": {"name": "linear"}}
    config = run_config("broken", **settings)
    broken = fresh()
    with pytest.warns(UserWarning, match=rf"step 2 was skipped, since its loss is {value}.*; 1 in a row of at most 10"):
        run = train(broken, dataset, Broken(value, {2}), config)
    seen = {}
    other = fresh()
    engine_step = torch.optim.AdamW.step

    def without_second(self: Any, closure: Any = None) -> None:
        seen["calls"] = seen.get("calls", 0) + 1
        if seen["calls"] != 2:
            engine_step(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", without_second)
        train(other, dataset, MSELoss(), run_config("other", **settings))
    assert same(weights(broken), weights(other))
    rows = read_losses(run.output_dir)
    assert [row.get("skipped", False) for row in rows] == [False, True, False, False]
    assert rows[1]["loss"] is None
    assert rows[1]["ids"] == ["2.png", "4.png"]
    assert [row["lr"] for row in rows] == pytest.approx([1e-4, 7.5e-5, 5e-5, 2.5e-5])
    assert [math.isnan(loss) for loss in run.losses] == [False, True, False, False]


def test_a_first_step_that_is_not_finite_is_left_out_too(backbone: Any, dataset: Any, run_config: Config) -> None:
    """Torch's own warning, that the schedule went before the optimizer, says nothing to a reader of the log."""
    with pytest.warns(UserWarning, match="step 1 was skipped") as said:
        train(backbone, dataset, Broken(math.nan, {1}), run_config(schedule={"name": "linear"}))
    assert len(said) == 1


def test_too_many_skipped_steps_in_a_row_end_the_run(backbone: Any, dataset: Any, run_config: Config) -> None:
    """One that succeeds begins the count anew; the message says what to change; checkpoints stay, no model appears."""
    config = run_config(training={"save_every": 1, "steps": 9, "max_skipped": 2})
    with (
        pytest.warns(UserWarning, match="was skipped") as said,
        pytest.raises(D4KError, match=r"step 7 was skipped, since its loss is nan.* 3 in a row, .*max_skipped = 2 all"),
    ):
        train(backbone, dataset, Broken(math.nan, {2, 3, 5, 6, 7}), config)
    assert len(said) == 4
    folder = RunFolder(Path(config.output_dir))
    assert [row["step"] for row in read_losses(folder.path)] == [1, 2, 3, 4, 5, 6, 7]
    state = folder.latest_state()
    assert state is not None
    assert state.name == "step-00000006"
    assert not folder.model.exists()


def test_failed_checkpoint_leaves_the_one_before(
    backbone: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while a checkpoint is written: an OutputError, no litter, and the run can be resumed."""
    config, save = run_config(training={"save_every": 2}), torch.save

    def full(data: Any, path: Path) -> None:
        if "step-00000004" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(data, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="step-00000004: No space left on device"):
        train(backbone, dataset, MSELoss(), config)
    folder = Path(config.output_dir) / "checkpoints"
    assert [p.name for p in folder.iterdir()] == ["step-00000002"]
    monkeypatch.undo()
    assert train(backbone, dataset, MSELoss(), config, resume=True).steps == 4


def test_damaged_checkpoint_is_not_resumed_from(backbone: Any, dataset: Any, run_config: Config) -> None:
    """A file cut short names its folder and the way back."""
    config = run_config(training={"save_every": 2})
    run = train(backbone, dataset, MSELoss(), config)
    file = run.output_dir / "checkpoints" / "step-00000004" / "trainable.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cannot resume from .*step-00000004: .* Delete that folder to resume"):
        train(backbone, dataset, MSELoss(), config, resume=True)


def test_bfloat16_run_is_close_to_the_float32_one(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Weights stay float32, losses agree to a percent; two precisions in one process do not disturb each other."""
    losses = []
    for name, precision in [("a", "no"), ("b", "bf16"), ("c", "no")]:
        backbone = fresh()
        run = train(backbone, dataset, MSELoss(), run_config(name, training={"precision": precision}))
        assert {tensor.dtype for tensor in weights(backbone).values()} == {torch.float32}
        losses.append(run.losses)
    assert losses[0] == losses[2] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_precision_of_a_run_does_not_outlive_it(backbone: Any, dataset: Any, run_config: Config) -> None:
    """After bfloat16 training the model computes in float32 again, as one does that is loaded from the disk."""
    run = train(backbone, dataset, MSELoss(), run_config(training={"precision": "bf16"}))
    loaded = type(backbone)(str(run.model))
    loaded.load(Placement(CPU, torch.float32))
    step = (
        torch.randn(1, 12, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.ones(1),
        backbone.encode_text(["a"]),
    )
    with torch.no_grad():
        assert torch.equal(backbone.velocity(*step), loaded.velocity(*step))


def test_gradient_checkpointing_is_switched_on(fresh: Any, dataset: Any, run_config: Config) -> None:
    """Only where it is asked for."""
    for name, wanted in [("a", True), ("b", False)]:
        backbone = fresh()
        train(backbone, dataset, MSELoss(), run_config(name, training={"steps": 1, "gradient_checkpointing": wanted}))
        assert backbone.trainable.checkpointing is wanted


def test_guidance_and_wrapped_module_reach_the_backbone(
    backbone: Any, dataset: Any, run_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training calls `velocity` with the configured guidance; afterwards the plain module is back."""
    module, velocity, seen = backbone.trainable, type(backbone).velocity, []

    def spy(self: Any, noisy: Tensor, sigma: Tensor, conditioning: Any, guidance: float | None = None) -> Tensor:
        seen.append((guidance, self.trainable.training, noisy.dtype))
        return velocity(self, noisy, sigma, conditioning)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(backbone), "velocity", spy)
    train(backbone, dataset, MSELoss(), run_config(flow={"guidance": 3.5}))
    assert seen == [(3.5, True, torch.float32)] * 4
    assert backbone.trainable is module
