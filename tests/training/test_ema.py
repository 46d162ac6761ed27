"""The moving average of the weights: against its closed form, exact in and out of the module, also in shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from d4k import Placement
from d4k.adapters import add_adapter
from d4k.config import AdapterSettings, EMASettings
from d4k.training.ema import EMA, kept, kept_share


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def walk(module: nn.Module, steps: int, on_step: Callable[[int], None], first: int = 1) -> None:
    """Change the trained weights as an optimizer would, by amounts that the step decides."""
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.1)
        on_step(step)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9999])
def test_average_is_the_weighted_sum_of_all_weights_so_far(backbone: Any, decay: float) -> None:
    """In closed form and float64: the weights after step k count (1 - d_k) times the shares kept since."""
    module, seen = backbone.trainable, []
    seen.append(weights(module))
    ema = EMA(module, EMASettings(decay=decay))

    def on_step(step: int) -> None:
        ema.update(module, step)
        seen.append(weights(module))

    walk(module, 30, on_step)
    shares = np.array([0.0, *(min(decay, (1 + k) / (10 + k)) for k in range(1, 31))])
    counts = (1 - shares) * np.array([np.prod(shares[k + 1 :]) for k in range(31)])
    assert counts.sum() == pytest.approx(1)
    for name, average in ema.tensors.items():
        expected = sum(count * each[name].double().numpy() for count, each in zip(counts, seen, strict=True))
        np.testing.assert_allclose(average.numpy(), expected, rtol=0, atol=2e-6)


def test_share_that_is_kept_rises_to_the_decay() -> None:
    """The average leaves the untrained weights at once, and keeps no more than was asked."""
    shares = [kept_share(0.99, step) for step in range(1, 2000)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (2 / 11, 0.99)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_average_takes_the_place_of_the_weights_and_leaves_no_trace(backbone: Any, dtype: torch.dtype) -> None:
    """Inside, the module has the average in its own dtype; afterwards its own weights bit by bit, also on an error."""
    module = backbone.trainable.to(dtype)
    ema = EMA(module, EMASettings(decay=0.9))
    walk(module, 5, lambda step: ema.update(module, step))
    before, average = weights(module), {name: tensor.clone() for name, tensor in ema.tensors.items()}
    assert all(tensor.dtype == torch.float32 for tensor in average.values())
    with ema.swapped(module):
        assert same(weights(module), {name: tensor.to(dtype) for name, tensor in average.items()})
        assert not same(weights(module), before)
    assert same(weights(module), before)
    with suppress(RuntimeError), ema.swapped(module):
        raise RuntimeError("sampling failed")
    assert same(weights(module), before)
    assert same(ema.tensors, average)
    ema.put_into(module)
    assert same(weights(module), {name: tensor.to(dtype) for name, tensor in average.items()})


def test_weights_that_are_kept_come_back(backbone: Any) -> None:
    """Whatever is done to them meanwhile."""
    before = weights(backbone.trainable)
    with kept(backbone.trainable):
        walk(backbone.trainable, 1, lambda step: None)
        assert not same(weights(backbone.trainable), before)
    assert same(weights(backbone.trainable), before)


def test_average_goes_on_from_a_checkpoint_bit_by_bit(backbone: Any) -> None:
    """What `tensors` held, loaded into a new average, ends where the uninterrupted one does."""
    module = backbone.trainable
    ema = EMA(module, EMASettings())
    walk(module, 4, lambda step: ema.update(module, step))
    left = {name: tensor.clone() for name, tensor in ema.tensors.items()}
    again = EMA(module, EMASettings(device="cpu"))
    assert not same(again.tensors, left)
    for name, tensor in again.tensors.items():
        tensor.copy_(left[name])

    def on_step(step: int) -> None:
        ema.update(module, step)
        again.update(module, step)

    walk(module, 4, on_step, first=5)
    assert same(again.tensors, ema.tensors)
    assert not same(again.tensors, left)


def test_only_what_is_trained_is_averaged(backbone: Any) -> None:
    """Of a model with an adapter, the adapter."""
    add_adapter(backbone.trainable, AdapterSettings(rank=2, targets=("into",)))
    ema = EMA(backbone.trainable, EMASettings())
    assert len(ema.tensors) == 2
    assert all("lora" in name for name in ema.tensors)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of one, for what is held in shares."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_shares_of_weights_are_averaged_as_whole_weights_are(backbone: Any) -> None:
    """Under FSDP2 the averages are shares too, of the same values; loaded from shares or from whole tensors."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    whole, shared = type(backbone)(), backbone
    whole.load(Placement(torch.device("cpu"), torch.float32))
    fully_shard(shared.trainable, mesh=init_device_mesh("cpu", (1,)))
    one, other = (EMA(each.trainable, EMASettings(decay=0.8, device="cpu")) for each in (whole, shared))
    walk(whole.trainable, 6, lambda step: one.update(whole.trainable, step))
    for step in range(1, 7):
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in shared.trainable.parameters():
                parameter.to_local().add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        other.update(shared.trainable, step)
    assert all(isinstance(tensor, DTensor) for tensor in other.tensors.values())
    assert same({name: tensor.full_tensor() for name, tensor in other.tensors.items()}, one.tensors)
    x = torch.ones(1, 12, 4, 4), torch.ones(1), torch.ones(1, 4)
    with one.swapped(whole.trainable), other.swapped(shared.trainable), torch.no_grad():
        assert torch.equal(whole.trainable(*x), shared.trainable(*x))
    with torch.no_grad():
        assert torch.equal(whole.trainable(*x), shared.trainable(*x))
