"""Optimizers: each learns, goes on from its state as if it had not stopped, and says what it cannot take."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from d4k import ConfigError
from d4k.config import OPTIMIZERS, OptimizerSettings
from d4k.training import train
from d4k.training.losses import MSELoss
from d4k.training.optimizers import evaluation_weights, make_optimizer, training_mode
from d4k.training.optimizers.offload import OffloadedOptimizer

RATES = {"prodigy": 1.0, "schedule-free": 1e-2}
NAMES = (*OPTIMIZERS, "torch.optim:RMSprop")


class Small(nn.Module):
    """Two blocks between two ends, the blocks large enough for a state in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 64), nn.Linear(64, 8)
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(2))

    def forward(self, value: Tensor) -> Tensor:
        value = self.first(value)
        for block in self.blocks:
            value = block(value).relu()
        result: Tensor = self.last(value)
        return result


def make(name: str, **options: Any) -> tuple[Small, Any]:
    torch.manual_seed(0)
    module = Small().to(torch.bfloat16 if name == "adamw-bf16" else torch.float32)
    settings = OptimizerSettings(name, lr=RATES.get(name, 1e-3), options=options)
    return module, make_optimizer(settings, module, seed=3)


def steps(module: nn.Module, optimizer: Any, numbers: range) -> list[float]:
    """Steps towards a fixed function of numbered inputs."""
    losses = []
    with training_mode(optimizer):
        for number in numbers:
            value = torch.randn(16, 8, generator=torch.Generator().manual_seed(number))
            dtype = next(module.parameters()).dtype
            loss = (module(value.to(dtype)) - value.to(dtype).flip(1)).float().square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
    return losses


def saved(optimizer: Any) -> Any:
    """Its state as a checkpoint brings it back."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_makes_the_loss_smaller(name: str) -> None:
    """On a function that the module can learn."""
    module, optimizer = make(name)
    assert isinstance(optimizer, torch.optim.Optimizer)
    losses = steps(module, optimizer, range(60))
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_goes_on_from_its_state_exactly(name: str) -> None:
    """Through a file that is read without unpickling code; torch's random state has no part in it."""
    module, optimizer = make(name)
    if name == "schedule-free":
        optimizer.train()
    _train(module, optimizer, range(4))
    weights, state = {k: v.clone() for k, v in module.state_dict().items()}, saved(optimizer)
    whole = _train(module, optimizer, range(4, 8))
    torch.manual_seed(1234)
    other, again = make(name)
    torch.manual_seed(99)
    other.load_state_dict(weights)
    again.load_state_dict(state)
    assert _train(other, again, range(4, 8)) == whole
    for key, value in module.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def _train(module: nn.Module, optimizer: Any, numbers: range) -> list[float]:
    """Steps of a run that is not at its end: an optimizer with modes stays in that of training."""
    plain = SimpleNamespace(step=optimizer.step, zero_grad=optimizer.zero_grad)
    return steps(module, plain, numbers)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "schedule-free"])
def test_every_optimizer_follows_a_schedule(name: str) -> None:
    """A learning rate of zero changes nothing, before and after its state was loaded."""
    module, optimizer = make(name)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step == 0))
    steps(module, optimizer, range(1))
    optimizer.load_state_dict(saved(optimizer))
    schedule.step()
    before = [parameter.clone() for parameter in module.parameters()]
    _train(module, optimizer, range(1, 3))
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_adamw_is_torch_adamw_bit_for_bit() -> None:
    """On a CPU without the fused kernel, whose sums are in another order."""
    module, optimizer = make("adamw")
    torch.manual_seed(0)
    other = Small()
    plain = torch.optim.AdamW(other.parameters(), lr=1e-3, weight_decay=1e-4)
    assert steps(module, optimizer, range(3)) == steps(other, plain, range(3))


def test_eight_bits_hold_the_state_of_large_weights() -> None:
    """A quarter of the memory, and close to AdamW."""
    module, optimizer = make("adamw-8bit")
    other, plain = make("adamw")
    assert steps(module, optimizer, range(10)) == pytest.approx(steps(other, plain, range(10)), rel=0.02)
    moment = optimizer.state[module.get_parameter("blocks.0.weight")]["exp_avg"]
    assert moment.codes.dtype == torch.uint8
    assert optimizer.state[module.first.bias]["exp_avg"].dtype == torch.float32


def test_bfloat16_weights_take_small_updates_on_average() -> None:
    """Rounding at random adds up what rounding to the nearest loses, by the seed of the run."""
    ends: dict[int, Tensor] = {}
    for seed in (0, 0, 1):
        module = nn.Linear(64, 64, bias=False).to(torch.bfloat16)
        with torch.no_grad():
            module.weight.fill_(1.0)
        settings = OptimizerSettings("adamw-bf16", lr=1e-4, weight_decay=0.0)
        optimizer = make_optimizer(settings, module, seed=seed)
        for _ in range(20):
            module.weight.grad = torch.ones_like(module.weight)
            optimizer.step()
        if seed in ends:
            assert torch.equal(ends[seed], module.weight)
        ends[seed] = module.weight.detach().clone()
    assert not torch.equal(ends[0], ends[1])
    assert ends[0].float().mean().item() == pytest.approx(1 - 20 * 1e-4, abs=3e-4)  # nearest: 1.0


def test_muon_trains_the_matrices_of_the_blocks_alone() -> None:
    """What is at the ends, and every bias, is left to AdamW; a step of Muon is orthogonal."""
    module, optimizer = make("muon")
    kinds = {id(p): group["kind"] for group in optimizer.param_groups for p in group["params"]}
    named = {name: kinds[id(parameter)] for name, parameter in module.named_parameters()}
    assert {name for name, kind in named.items() if kind == "muon"} == {"blocks.0.weight", "blocks.1.weight"}
    matrix = module.get_parameter("blocks.0.weight")
    before = matrix.detach().clone()
    matrix.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    values = torch.linalg.svdvals(matrix.detach() - before) / (1e-3 * 0.2 * 64**0.5)
    assert values.max() < 1.3
    assert values.median() > 0.6  # of the gradient itself: 0.4 of the largest


def test_schedule_free_shows_its_average_and_goes_on_with_the_same_bits() -> None:
    """Validation sees other weights than training, and changes none."""
    module, optimizer = make("schedule-free")
    optimizer.train()
    _train(module, optimizer, range(5))
    trained = [parameter.detach().clone() for parameter in module.parameters()]
    with evaluation_weights(optimizer):
        shown = [parameter.detach().clone() for parameter in module.parameters()]
        assert not optimizer.param_groups[0]["train_mode"]
    assert all(torch.equal(a, b) for a, b in zip(trained, module.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(trained, shown, strict=True))
    with training_mode(optimizer):
        pass
    assert all(torch.equal(a, b) for a, b in zip(shown, module.parameters(), strict=True))


def test_modes_leave_other_optimizers_alone() -> None:
    """Most have none."""
    module, optimizer = make("adamw")
    before = module.first.weight
    with training_mode(optimizer), evaluation_weights(optimizer):
        assert module.first.weight is before


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamw", {"amsgrd": True}, "optimizer 'adamw' has no option 'amsgrd'; did you mean 'amsgrad'?"),
        ("muon", {"momentun": 0.9}, "did you mean 'momentum'?"),
        ("prodigy", {"d_coeff": 2}, "did you mean 'd_coef'?"),
        ("adamw-bf16", {"bf16_stochastic_round": False}, "has no option"),
        ("adamw", {"betas": (0.9, 0.9)}, "optimizer.options.betas is a setting of its own"),
        ("torch.optim:SDG", {}, "torch.optim has no 'SDG'; did you mean 'SGD'?"),
        ("torch.nn:Linear", {}, "must name a subclass of torch.optim.Optimizer"),
        ("nowhere_at_all:Adam", {}, "cannot import nowhere_at_all"),
    ],
)
def test_mistakes_are_named(name: str, options: dict[str, Any], message: str) -> None:
    """In one sentence, with what was meant."""
    with pytest.raises(ConfigError) as error:
        make(name, **options)
    assert message in str(error.value)


def test_a_setting_that_an_optimizer_does_not_have_is_refused() -> None:
    """It would be ignored otherwise."""
    settings = OptimizerSettings("torch.optim:SGD", beta1=0.8)
    with pytest.raises(ConfigError, match=r"optimizer.beta1 has no effect on 'torch.optim:SGD', which has no betas"):
        make_optimizer(settings, Small())


@pytest.mark.parametrize(
    ("name", "package"),
    [("adamw-8bit", "torchao"), ("prodigy", "prodigyopt"), ("schedule-free", "schedulefree")],
)
def test_a_missing_package_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it, and what works without."""
    monkeypatch.delitem(sys.modules, "d4k.training.optimizers.low_bit", raising=False)
    for module in (package, f"{package}.optim"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"'{name}' needs {package}: pip install {package}, or choose 'adamw'"):
        make(name)


class OnHost:
    """What torchao's CPUOffloadOptimizer is made of, without a GPU: copies of large weights, and an optimizer each."""

    def __init__(self, trained: list[nn.Parameter], made: Callable[..., Any]) -> None:
        large, small = ([p for p in trained if (p.numel() >= 512) is big] for big in (True, False))
        self.param_d2h_map = {p: p.detach().clone() for p in large}
        self.optim_dict = {p: made([self.param_d2h_map[p]]) for p in large}
        self.d_opt = made(small)
        self.param_groups = self.d_opt.param_groups

    def step(self, closure: Any = None) -> None:
        self.d_opt.step()
        for parameter, own in self.optim_dict.items():
            host = self.param_d2h_map[parameter]
            host.grad = parameter.grad
            own.step()
            with torch.no_grad():
                parameter.copy_(host)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.optim_dict:
            parameter.grad = None
        self.d_opt.zero_grad()


def test_an_offloaded_state_is_saved_as_any_other_and_goes_on_with_the_weights_that_were_loaded() -> None:
    """The copies in CPU memory are those of the checkpoint and not those that the run began with."""

    def offloaded() -> tuple[Small, Any]:
        torch.manual_seed(0)
        module = Small()
        inner = OnHost(list(module.parameters()), lambda group: torch.optim.AdamW(group, lr=1e-3, weight_decay=1e-4))
        return module, OffloadedOptimizer(list(module.parameters()), inner)

    module, optimizer = offloaded()
    plain, other = make("adamw")
    assert steps(module, optimizer, range(3)) == steps(plain, other, range(3))
    state = saved(optimizer)
    assert state["state"].keys() == saved(other)["state"].keys()
    again, resumed = offloaded()
    again.load_state_dict({key: value.clone() for key, value in module.state_dict().items()})
    resumed.load_state_dict(state)
    assert (
        steps(again, resumed, range(3, 6)) == steps(module, optimizer, range(3, 6)) == steps(plain, other, range(3, 6))
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_run_goes_on_exactly_with_every_optimizer(
    name: str, fresh: Callable[..., Any], dataset: Any, run_config: Callable[..., Any]
) -> None:
    """Through the loop and its checkpoints, which record the learning rate of each step."""
    precision, dtype = ("bf16", torch.bfloat16) if name == "adamw-bf16" else ("no", torch.float32)
    optimizer = {"name": name, "lr": RATES.get(name, 1e-3)}
    losses = {}
    for folder, ends in {"whole": [4], "parts": [2, 4]}.items():
        for end in ends:
            training = {"steps": end, "save_every": 2, "precision": precision}
            config = run_config(folder, optimizer=optimizer, training=training)
            losses[folder] = train(fresh(dtype), dataset, MSELoss(), config, resume=end != ends[0]).losses
    assert losses["parts"] == losses["whole"]
    assert len(losses["whole"]) == 4
