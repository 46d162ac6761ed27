"""Memory, operations and files of training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from d4k.adapters import add_adapter
from d4k.models import autocast_dtype, ones_of
from d4k.planning.generation import Area, autoencoding, total
from d4k.planning.shapes import refusing
from d4k.planning.trace import Trace, trace
from d4k.planning.values import Memory, RunPlan
from d4k.protocols import Backbone

__all__ = ["prepare", "run_files", "training"]


def prepare(backbone: Backbone, run: RunPlan) -> None:
    """Let go of what the run trains: all of the denoiser, or a new adapter."""
    if run.adapter is not None:
        add_adapter(backbone.trainable, run.adapter)
    else:
        backbone.trainable.requires_grad_(True)


def training(backbone: Backbone, area: Area, run: RunPlan) -> tuple[Memory, int]:
    """What training holds, with activations kept and computed again, and the operations of one pass.

    Args:
        backbone: on the meta device, after `prepare`.
        area: pictures of one forward pass.
        run: how it is trained.
    """
    module = backbone.trainable.train()
    trained = _trained(backbone)
    weights = _weights(backbone)
    gradients, state = total(trained), _state(trained, run.optimizer)
    buckets = gradients if run.processes > 1 else 0
    waiting = gradients if run.accumulation > 1 else 0  # of the passes before, while the next one runs
    encoding = autoencoding(backbone, area, 0, encoding=True)
    held = weights + state + buckets
    plain = _step(backbone, area, autocast_dtype(run.precision))
    module.enable_gradient_checkpointing()  # type: ignore[operator]
    lean = _step(backbone, area, autocast_dtype(run.precision))
    # AdamW makes one more copy of the weights while it updates them
    update = gradients + (gradients if run.optimizer == "adamw" else 0)
    rows = {"weights": weights, "gradients": gradients, "optimizer": state}
    rows |= {"gradients being exchanged": buckets} if buckets else {}
    rows |= {"activations": plain.kept, "activations, checkpointed": lean.kept, "encoding, at least": encoding}
    peaks = {
        "all activations kept": held + max(plain.peak + waiting, update, encoding),
        "gradient checkpointing": held + max(lean.peak + waiting, update, encoding),
    }
    return Memory(rows, peaks), plain.flops


def run_files(backbone: Backbone, run: RunPlan) -> dict[str, int]:
    """Bytes of what a run writes: its checkpoints, and what it was for."""
    trained = _trained(backbone)
    one = total(trained) + _state(trained, run.optimizer)
    files = {"a checkpoint of the run": one}
    if run.checkpoints is not None:
        files[f"all {run.checkpoints} checkpoints of {run.steps:,} steps"] = run.checkpoints * one
    if run.adapter is not None:
        return files | {"the adapter": total(trained)}
    return files | {"the trained model": _weights(backbone)}


def _step(backbone: Backbone, area: Area, autocast: torch.dtype | None) -> Trace:
    # the loop holds latents in float32, and text in the dtype of the text encoders
    noise = area.noise(backbone)
    noise = noise.float() if noise.dtype == torch.float32 or autocast is not None else noise
    sigma = torch.empty(area.batch, device="meta")
    with refusing(type(backbone.trainable).__name__, "is trained"):
        text = backbone.encode_text([""] * area.batch).to(device="meta")
        found = trace(lambda: backbone.velocity(noise, sigma, text), autocast, [sigma, *ones_of(text)])
    backbone.trainable.zero_grad(set_to_none=True)
    return found


def _trained(backbone: Backbone) -> list[Tensor]:
    return [parameter for parameter in backbone.trainable.parameters() if parameter.requires_grad]


def _weights(backbone: Backbone) -> int:
    return sum(total(part.parameters()) + total(part.buffers()) for part in backbone.components.values())


def _state(trained: Iterable[Tensor], optimizer: str) -> int:
    """Two moments a weight: in its own dtype, or in 8 bits with a float32 scale for each 256."""
    weights = list(trained)
    if optimizer == "adamw-8bit":
        return int(sum(weight.numel() for weight in weights) * 2 * (1 + 4 / 256))
    return 2 * total(weights)
