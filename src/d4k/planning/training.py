"""Memory, operations and files of training, for each of the processes that share a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from d4k.adapters import add_adapter
from d4k.config import TrainingSettings, kept_at_once
from d4k.models import DTYPES, QUANTIZERS, autocast_dtype, ones_of
from d4k.planning.generation import Area, autoencoding, total
from d4k.planning.shapes import refusing
from d4k.planning.state import state_bytes, update_bytes
from d4k.planning.trace import Trace, trace
from d4k.planning.values import Memory, RunPlan
from d4k.protocols import Backbone
from d4k.upstream import block_names

__all__ = ["prepare", "run_files", "step_peak", "training"]

FLOAT32 = 4  # bytes
LEAN, PLAIN = "gradient checkpointing", "all activations kept"


def prepare(backbone: Backbone, run: RunPlan) -> None:
    """Let go of what the run trains: all of the denoiser, or a new adapter."""
    if run.adapter is not None:
        add_adapter(backbone.trainable, run.adapter)
    else:
        backbone.trainable.requires_grad_(True)


@frozen
class Sizes:
    """Bytes of one process, beside activations.

    Args:
        weights: of the denoiser that rest on the device.
        gradients: once all of them are there.
        state: of the optimizer, on the device.
        average: of the weights, on the device.
        others: weights of text encoders and autoencoder.
        gathered: weights that are whole while they compute, and gradients on their way, with fsdp2.
        update: what the optimizer makes while it steps.
    """

    weights: int
    gradients: int
    state: int
    average: int
    others: int
    gathered: int
    update: int

    @property
    def held(self) -> int:
        """What is there all the time."""
        return self.weights + self.state + self.average

    @classmethod
    def of(cls, backbone: Backbone, run: RunPlan) -> Sizes:
        """Those of a run over a backbone that was prepared for it."""
        module, trained = backbone.trainable, _trained(backbone)
        share = run.processes if run.sharing == "fsdp2" else 1
        numbers = sum(parameter.numel() for parameter in trained)
        moved = run.offload == "all"
        return cls(
            weights=0 if moved else _denoiser(module, run) // share,
            gradients=0 if moved else total(trained) // share,
            state=0 if run.offload != "none" else state_bytes(module, run.optimizer) // share,
            average=FLOAT32 * numbers // share if run.ema == "same" and not moved else 0,
            others=sum(_bytes(part) for part in backbone.components.values() if part is not module),
            gathered=_gathered(module, run) if run.sharing == "fsdp2" else 0,
            update=0 if run.offload != "none" else update_bytes(trained, run.optimizer) // share,
        )


def training(backbone: Backbone, area: Area, run: RunPlan, narrow: Backbone | None = None) -> tuple[Memory, int]:
    """What training holds, with activations kept and computed again, and the operations of one pass.

    Args:
        backbone: on the meta device, after `prepare`.
        area: pictures of one forward pass.
        run: how it is trained.
        narrow: the same in the dtype that is computed in, which is what fsdp2 gathers; None takes `backbone`.
    """
    sizes = Sizes.of(backbone, run)
    encoding = autoencoding(backbone, area, 0, encoding=True)
    traced = backbone if run.sharing != "fsdp2" or narrow is None else narrow
    module = traced.trainable.train()
    plain = _step(traced, area, run)
    module.enable_gradient_checkpointing()  # type: ignore[operator]
    lean = _step(traced, area, run)
    rows = {"weights": sizes.weights + (0 if run.cached else sizes.others), "gradients": sizes.gradients}
    rows |= {"optimizer": sizes.state}
    rows |= {"moving average": sizes.average} if sizes.average else {}
    rows |= {"gathered weights and gradients": sizes.gathered} if sizes.gathered else {}
    rows |= {"activations": plain.kept, "activations, checkpointed": lean.kept}
    rows |= {"text encoders and autoencoder": sizes.others, "encoding, at least": encoding}
    peaks = {name: _peak(sizes, step, encoding, run) for name, step in ((PLAIN, plain), (LEAN, lean))}
    return Memory(rows, peaks, _on_cpu(backbone, run)), plain.flops


def step_peak(backbone: Backbone, area: Area, run: RunPlan) -> int:
    """The most that a process holds in a checkpointed step, beside text encoders and autoencoder.

    Args:
        backbone: on the meta device, after `prepare`, in the dtype that is computed in.
        area: pictures of one forward pass.
        run: how it is trained.
    """
    backbone.trainable.train().enable_gradient_checkpointing()  # type: ignore[operator]
    sizes = Sizes.of(backbone, run)
    return sizes.held + _step_peak(sizes, _step(backbone, area, run), run)


def _step_peak(sizes: Sizes, step: Trace, run: RunPlan) -> int:
    """What is held beside weights and state in a pass, or in the update."""
    # gradients grow while activations are freed; those of the passes before wait, while the next one runs, and those of
    # ddp lie in buckets from the first step on
    waiting = sizes.gradients if run.accumulation > 1 or run.sharing == "ddp" else 0
    passing = step.peak + waiting + sizes.gathered
    return max(passing, sizes.gradients + sizes.update)


def _peak(sizes: Sizes, step: Trace, encoding: int, run: RunPlan) -> int:
    """The most that is held at once, while encoding and in the steps."""
    working = _step_peak(sizes, step, run)
    if not run.cached:
        return sizes.held + sizes.others + max(working, encoding)
    # the denoiser is there already, but with fsdp2 it waits in CPU memory until it is shared out
    before = sizes.others + encoding + (0 if run.sharing == "fsdp2" else sizes.weights)
    return max(before, sizes.held + working)


def _on_cpu(backbone: Backbone, run: RunPlan) -> dict[str, int]:
    """What a process holds in CPU memory in place of the device."""
    trained, share = _trained(backbone), run.processes if run.sharing == "fsdp2" else 1
    rows = {}
    if run.sharing == "fsdp2":
        rows["weights, before they are shared out"] = _denoiser(backbone.trainable, run)
    if run.offload == "all":
        rows["weights and gradients"] = (_denoiser(backbone.trainable, run) + total(trained)) // share
    if run.offload == "optimizer":
        rows["copies of weights and gradients"] = 2 * total(trained)
    if run.offload != "none":
        rows["optimizer"] = state_bytes(backbone.trainable, run.optimizer) // share
    if run.ema == "cpu" or (run.ema == "same" and run.offload == "all"):
        rows["moving average"] = FLOAT32 * sum(parameter.numel() for parameter in trained) // share
    return rows


def _gathered(module: nn.Module, run: RunPlan) -> int:
    """What fsdp2 has whole beside the shares.

    While a block computes, its weights are whole, and those of the next are on their way in a buffer of that size; the
    weights outside the blocks are whole all the time. In the backward pass the gradient of a block is whole in the
    dtype of the weights, while that of the block before is averaged in float32.
    """
    narrow = autocast_dtype(run.precision)
    kinds = block_names(module)
    blocks = [part for part in module.modules() if type(part).__name__ in kinds]
    # the row of blocks may be of two kinds; what is on the way together is at most twice the larger
    weights = [_as(block.parameters(), narrow) for block in blocks] or [0]
    trained = [[p for p in block.parameters() if p.requires_grad] for block in blocks] or [[]]
    root = max(0, _as(module.parameters(), narrow) - sum(weights))
    largest = max(trained, key=lambda tensors: sum(t.numel() for t in tensors))
    numbers = sum(tensor.numel() for tensor in largest)
    return root + 2 * max(weights) + _as(largest, narrow) + FLOAT32 * numbers


def _as(tensors: object, dtype: torch.dtype | None) -> int:
    return sum(t.numel() * (t.element_size() if dtype is None else dtype.itemsize) for t in tensors)  # type: ignore[attr-defined]


def run_files(backbone: Backbone, run: RunPlan) -> dict[str, int]:
    """Bytes of what a run writes: the checkpoints that it keeps, and what it was for."""
    trained = _trained(backbone)
    one = total(trained) + state_bytes(backbone.trainable, run.optimizer)
    one += FLOAT32 * sum(parameter.numel() for parameter in trained) if run.ema else 0
    files = {"a checkpoint of the run": one}
    if run.steps is not None:
        kept = TrainingSettings(
            steps=run.steps, save_every=run.save_every, keep_last=run.keep_last, keep_every=run.keep_every
        )
        most, left = kept_at_once(kept)
        files[f"{_checkpoints(most)} at a time at most"] = most * one
        files[f"{_checkpoints(left)} in the end"] = left * one
    if run.adapter is not None:
        return files | {"the adapter": total(trained)}
    return files | {"the trained model": sum(_bytes(part) for part in backbone.components.values())}


def _checkpoints(count: int) -> str:
    return f"{count} checkpoint{'s' * (count != 1)}"


def _step(backbone: Backbone, area: Area, run: RunPlan) -> Trace:
    """A pass with its gradients, or with this process's shares of them; those of ddp are counted beside it."""
    autocast = autocast_dtype(run.precision)
    # the loop holds latents in float32, and text in the dtype of the text encoders
    noise = area.noise(backbone)
    noise = noise.float() if noise.dtype == torch.float32 or autocast is not None else noise
    sigma = torch.empty(area.batch, device="meta")
    with refusing(type(backbone.trainable).__name__, "is trained"), _gradients(backbone, run):
        text = backbone.encode_text([""] * area.batch).to(device="meta")

        def velocity() -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(_leave, _return) if run.activation_offload else _nothing():
                return backbone.velocity(noise, sigma, text)

        found = trace(velocity, autocast, [sigma, *ones_of(text)])
    backbone.trainable.zero_grad(set_to_none=True)
    return found


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _leave(tensor: Tensor) -> Tensor | tuple[torch.Size, torch.dtype]:
    """An activation goes to the CPU; a weight stays."""
    return tensor if tensor.is_leaf or tensor.device.type != "meta" else (tensor.shape, tensor.dtype)


def _return(kept: Tensor | tuple[torch.Size, torch.dtype]) -> Tensor:
    return kept if isinstance(kept, Tensor) else torch.empty(kept[0], dtype=kept[1], device="meta")


@contextmanager
def _gradients(backbone: Backbone, run: RunPlan) -> Iterator[None]:
    """What becomes of a gradient as soon as it is there: one process keeps it, ddp has counted it, fsdp2 shares it."""
    shares: list[Tensor] = []

    def take(parameter: Tensor) -> None:
        parameter.grad = None
        if run.sharing == "fsdp2" and run.offload != "all":
            share = -(-parameter.numel() // run.processes)
            shares.append(torch.empty(share, dtype=DTYPES[run.weights], device="meta"))

    hooks: list[Any] = []
    for parameter in () if run.sharing == "single" else _trained(backbone):
        hooks.append(parameter.register_post_accumulate_grad_hook(take))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _trained(backbone: Backbone) -> list[Tensor]:
    return [parameter for parameter in backbone.trainable.parameters() if parameter.requires_grad]


def _bytes(part: nn.Module) -> int:
    return total(part.parameters()) + total(part.buffers())


def _denoiser(module: nn.Module, run: RunPlan) -> int:
    """Bytes of the denoiser's weights, in fewer bits where an adapter is trained over them."""
    quantize = None if run.adapter is None else run.adapter.quantize
    if quantize is None:
        return _bytes(module)
    linear = [part.weight for part in module.modules() if isinstance(part, nn.Linear)]
    frozen_ones = [weight for weight in linear if not weight.requires_grad]
    return _bytes(module) - total(frozen_ones) + sum(QUANTIZERS[quantize].size(weight) for weight in frozen_ones)
