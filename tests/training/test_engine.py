"""FSDP2 in one process: its steps are those without it, and the module is as it was before in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from d4k import Pipeline, Sample
from d4k.config import RunConfig
from d4k.datasets import FolderDataset
from d4k.errors import CheckpointError, ConfigError
from d4k.models import RunFolder
from d4k.training import Bucket, Chosen, MSELoss, State, load_state, save_state, train
from d4k.training.engine import check_context, make_engine
from d4k.training.launch import joined
from d4k.training.shards import is_shared

Config = Callable[..., RunConfig]
CPU = torch.device("cpu")


class Block(torch.nn.Module):
    """One of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.register_buffer("constant", torch.ones(3))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return self.linear(value).tanh() * self.constant


class Row(torch.nn.Module):
    """A denoiser of two blocks, of which the second is frozen."""

    _no_split_modules = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(), Block()])
        self.blocks[1].requires_grad_(False)
        self.hooked: list[int] = []
        self.blocks[0].register_forward_hook(lambda *_: self.hooked.append(1))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            value = block(value)
        return value


@pytest.fixture
def engine(run_config: Config) -> Iterator[Any]:
    """An engine that shares weights out, although there is one process."""
    config = run_config(parallel={"strategy": "fsdp2"})
    with joined(config, CPU):
        yield make_engine(config, CPU)


def trained(engine: Any) -> State:
    """A row that is shared out, after one step."""
    torch.manual_seed(0)
    module = Row()
    engine.share(module)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1)
    state = State(module, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), step=1)
    engine.backward(module(torch.ones(2, 3)).sum())
    optimizer.step()
    state.schedule.step()
    return state


def test_gathering_undoes_sharing(engine: Any) -> None:
    """Classes, hooks, buffers, gradients that are wanted, values: all as before; and it can be shared again."""
    module = Row()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for _ in range(2):
        engine.share(module)
        assert is_shared(module)
        assert type(module) is not Row
        engine.gather(module)
        assert type(module) is Row
        assert type(module.blocks[0]) is Block
        assert not is_shared(module)
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
        assert [p.requires_grad for p in module.parameters()] == [True, True, False, False]
    module(torch.ones(1, 3)).sum().backward()
    assert module.hooked == [1]
    assert len(module.blocks[0]._forward_hooks) == 1
    assert not module._forward_pre_hooks


@pytest.mark.parametrize("adapter", [None, {"rank": 2, "targets": ["into", "out"]}])
def test_an_interrupted_run_goes_on_in_its_session(
    backbone: Any, photos: Path, run_config: Config, adapter: Any
) -> None:
    """As in another; the weights are whole meanwhile."""

    def stop(step: int, loss: float) -> None:
        if step == 2:
            raise KeyboardInterrupt

    sections = {"parallel": {"strategy": "fsdp2"}, "training": {"save_every": 1}, "adapter": adapter}
    config, dataset = run_config(**sections), FolderDataset(photos)
    whole = train(deepcopy(backbone), dataset, MSELoss(), run_config("whole", **sections))
    with pytest.raises(KeyboardInterrupt):
        train(backbone, dataset, MSELoss(), config, on_step=stop)
    assert not is_shared(backbone.trainable)
    run = train(backbone, dataset, MSELoss(), config, resume=True)
    assert run.losses == whole.losses


def test_weights_that_are_shared_out_already_are_refused(engine: Any) -> None:
    """Several processes cannot make them whole where one has stopped."""
    module = Row()
    engine.share(module)
    with pytest.raises(ConfigError, match="still shared out .* load the model again"):
        engine.share(module)


def test_processes_with_different_weights_are_refused(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of two models would make a third."""
    monkeypatch.setattr(engine.processes, "gather", lambda said: [said, "of another model"])
    with pytest.raises(CheckpointError, match="loaded different weights"):
        engine.share(Row())


def test_the_norm_is_that_of_the_whole_gradient(engine: Any) -> None:
    """And a gradient that is longer than allowed is scaled to what is allowed."""
    torch.manual_seed(0)
    plain, shared = Row(), Row()
    shared.load_state_dict(plain.state_dict())
    engine.share(shared)
    for module in (plain, shared):
        (module(torch.ones(2, 3)).sum() / 1).backward()
    expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
    assert expected > 0.1
    torch.testing.assert_close(engine.clip(shared, 0.1), expected)
    for one, other in zip(plain.parameters(), shared.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad.full_tensor(), one.grad)  # type: ignore[union-attr]


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("adapter", [False, True])
def test_fsdp2_in_one_process_trains_as_without(
    backbone: Any, photos: Path, run_config: Config, precision: str, adapter: bool
) -> None:
    """Losses equal bit by bit, also where products are computed in bfloat16; the model is usable afterwards."""
    sections: dict[str, Any] = {"adapter": {"rank": 2, "targets": ["into", "out"]}} if adapter else {}
    results, dataset = [], FolderDataset(photos)
    for strategy in ("auto", "fsdp2"):
        fresh = type(backbone)()
        fresh.trainable = type(backbone.trainable)(backbone.latent.channels)
        fresh.trainable.load_state_dict(backbone.trainable.state_dict())
        config = run_config(
            strategy, parallel={"strategy": strategy}, training={"precision": precision, "accumulation": 2}, **sections
        )
        results.append(train(fresh, dataset, MSELoss(), config).losses)
        assert all(type(parameter) is torch.nn.Parameter for parameter in fresh.trainable.parameters())
        if not adapter:
            assert (Path(config.output_dir) / "model" / "denoiser.safetensors").is_file()
    assert results[1] == pytest.approx(results[0], rel=1e-6 if precision == "no" else 1e-2)


def test_shards_hold_moments_and_average(engine: Any, tmp_path: Path) -> None:
    """Weights, buffers, moments and the average come back; nothing in the folder is pickled but plain values."""
    state, other = trained(engine), trained(engine)
    weights = {name: tensor for name, tensor in state.module.named_parameters() if tensor.requires_grad}
    state.ema = {name: tensor.detach() * 2 for name, tensor in weights.items()}
    other.ema = {name: torch.zeros_like(tensor.detach()) for name, tensor in weights.items()}
    for parameter in other.module.parameters():
        parameter.data.mul_(3)
    path = save_state(RunFolder(tmp_path), state)
    load_state(path, other)
    assert sorted(file.suffix for file in path.rglob("*.*") if file.is_file()) == [
        ".json", ".jsonl", ".pt", ".safetensors",
    ]  # fmt: skip
    for name, tensor in other.module.named_parameters():
        if tensor.requires_grad:
            assert torch.equal(tensor.full_tensor(), weights[name].full_tensor())  # type: ignore[attr-defined]
            assert torch.equal(other.ema[name].full_tensor(), state.ema[name].full_tensor())  # type: ignore[attr-defined]
    for one, two in zip(state.optimizer.state.values(), other.optimizer.state.values(), strict=True):
        assert torch.equal(one["exp_avg"].full_tensor(), two["exp_avg"].full_tensor())
        assert one["step"] == two["step"]


def test_processes_that_accelerate_does_not_see_are_refused(
    monkeypatch: pytest.MonkeyPatch, run_config: Config
) -> None:
    """Each would train by itself, into one folder."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="accelerate sees 1 of 2 processes"):
        make_engine(run_config(), CPU)


@pytest.mark.parametrize(
    ("model", "context", "width", "words"),
    [
        ("tiny-sd3", 2, 64, "needs a plan of diffusers, which SD3Transformer2DModel does not have"),
        ("tiny-flux", 4, 64, "is 4, which does not divide 6 attention heads"),
        ("tiny-flux", 3, 64, "is 3, which does not divide 16 tokens of a picture of 64x64"),
        ("tiny-flux", 5, 80, "is 5, which does not divide 24 tokens of text"),
    ],
)
def test_tokens_that_cannot_be_shared_are_refused(
    run_config: Config, model: str, context: int, width: int, words: str
) -> None:
    """Before the first step; what diffusers says of it is an assertion."""
    backbone = Pipeline.from_pretrained(model, device="cpu", text_tokens=24).backbone
    chosen = Chosen([Sample("one", "a caption", Path())], (Bucket(width, 64, (0,)),))  # type: ignore[arg-type]
    cached = {"a caption": backbone.encode_text(["a caption"])}  # without dropout no empty caption is cached
    feed: Any = SimpleNamespace(chosen=chosen, source=SimpleNamespace(text=cached.__getitem__))
    with pytest.raises(ConfigError, match=words):
        check_context(backbone, feed, run_config(parallel={"context": context}, training={"caption_dropout": 0.0}))
    check_context(backbone, feed, run_config())


@pytest.mark.parametrize("damage", ["cut", "missing", "strange"])
def test_a_damaged_shard_is_named(engine: Any, tmp_path: Path, damage: str) -> None:
    """A share that is not there would otherwise be read as what was in memory."""
    state = trained(engine)
    path = save_state(RunFolder(tmp_path), state)
    file = next((path / "shards").iterdir())
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "missing":
        file.unlink()
    else:
        (path / "shards" / "another.safetensors").write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"step-00000001: shards/.* is missing, cut short or does not belong"):
        load_state(path, state)
