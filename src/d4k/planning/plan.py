"""Will it fit? Parameters, tokens, operations and memory of generating and training, without reading a weight.

Shapes come from a model's configuration files, put on the meta device; what a step holds is followed through the
denoiser itself, operation by operation, so any backbone that loads on the meta device can be planned.
One gigabyte is 10^9 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from d4k.adapters import add_adapter
from d4k.autoencoder import footprint
from d4k.config import AdapterSettings
from d4k.errors import ConfigError, UnknownNameError
from d4k.models import DTYPES, Model, ModelRef, find_model, registered_checkpoint
from d4k.planning.trace import Trace, trace
from d4k.plugins import create, registry
from d4k.protocols import Backbone, Placement
from d4k.sampling import check_size

__all__ = ["Memory", "Part", "Plan", "plan", "shapes"]

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
OPTIMIZERS = ("adamw", "adamw-8bit")
QUANTIZERS = {"int8": 1.0, "float8": 1.0, "nf4": 0.5 + 4 / 64}
"""Bytes a weight of a linear layer; nf4 with a float32 scale for each 64."""


@frozen
class Part:
    """One model of a backbone.

    Args:
        name: such as "transformer".
        parameters: how many.
        size: bytes of its weights; quantised, where that was asked for.
    """

    name: str
    parameters: int
    size: int


@frozen
class Memory:
    """What a device must hold.

    Args:
        rows: bytes by what they are for; not all at the same time.
        peaks: bytes held at once, at most, by the way of doing it.
    """

    rows: Mapping[str, int]
    peaks: Mapping[str, int]


@frozen
class Plan:
    """What generating, and training where asked for, would take; memory is that of each process.

    Args:
        model: as it was asked for.
        backbone: registered name.
        settings: what was planned for.
        parts: the models it consists of.
        latent: channels, rows and columns.
        tokens: of a picture.
        text_tokens: of a prompt.
        flops: floating-point operations of one sampling step, guidance included.
        training_flops: of one forward and backward pass; None without training.
        generation: memory of drawing.
        training: memory of fine-tuning; None without training.
        disk: bytes of the files, by what they are.
    """

    model: str
    backbone: str
    settings: Mapping[str, Any]
    parts: tuple[Part, ...]
    latent: tuple[int, int, int]
    tokens: int
    text_tokens: int
    flops: int
    training_flops: int | None
    generation: Memory
    training: Memory | None
    disk: Mapping[str, int]


def plan(
    model: str,
    *,
    width: int,
    height: int,
    batch_size: int = 1,
    dtype: str = "bfloat16",
    quantize: str | None = None,
    train: bool = False,
    train_dtype: str = "float32",
    precision: str = "bf16",
    adapter_rank: int | None = None,
    optimizer: str = "adamw",
    processes: int = 1,
    **options: Any,
) -> Plan:
    """Plan generating with a model, and training it, before anything is loaded.

    Attention is taken to run in a kernel that never holds the matrix of scores, as PyTorch's do on GPUs and the CPU.

    Args:
        model: a registered checkpoint, a folder in the diffusers layout, or a Hub id.
        width: pixels.
        height: pixels.
        batch_size: pictures at a time.
        dtype: of the weights while generating: "float32", "bfloat16" or "float16".
        quantize: "int8", "float8" or "nf4": hold the denoiser's linear layers in fewer bits while generating.
        train: plan training too.
        train_dtype: of the weights while training.
        precision: mixed precision while training: "no", "bf16" or "fp16".
        adapter_rank: of an adapter on the attention layers; None trains all weights.
        optimizer: "adamw" or "adamw-8bit".
        processes: how many devices share a run.
        options: of the backbone, such as `downscale=16`.

    Raises:
        UnknownNameError: there is no such model, dtype, precision, optimizer or quantisation.
        ConfigError: the size does not suit the backbone, or an option does not exist.
        CheckpointError: a configuration file is missing, or the Hub cannot be reached for it.
    """
    _check_names(dtype, train_dtype, precision, optimizer, quantize)
    for name, value in {"batch_size": batch_size, "processes": processes, "adapter_rank": adapter_rank}.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    source = _find(model)
    backbone = shapes(model, dtype, **options)
    check_size(backbone, width, height)
    area = Area(width, height, batch_size)
    step = _sampling_step(backbone, source.backbone, area)
    parts = _parts(backbone, quantize)
    generation = _generation(backbone, parts, step, area)
    settings: dict[str, Any] = {"width": width, "height": height, "batch_size": batch_size, "dtype": dtype}
    settings |= {"quantize": quantize, **source.options, **options}
    training, training_flops, disk = None, None, {"a picture at most": width * height * 3}
    if train:
        tuned = shapes(model, train_dtype, **options)
        if adapter_rank is not None:
            add_adapter(tuned.trainable, AdapterSettings(rank=adapter_rank))
        training, training_flops = _training(tuned, area, PRECISIONS[precision], optimizer, processes)
        disk |= _files(tuned, optimizer, adapter_rank is not None)
        settings |= {"train_dtype": train_dtype, "precision": precision, "adapter_rank": adapter_rank}
        settings |= {"optimizer": optimizer, "processes": processes}
    spec = backbone.latent
    latent = (spec.channels, height // spec.downscale, width // spec.downscale)
    return Plan(
        model=model,
        backbone=source.backbone,
        settings=settings,
        parts=parts,
        latent=latent,
        tokens=(height // spec.granularity) * (width // spec.granularity),
        text_tokens=max((t.shape[1] for t in backbone.encode_text([""]).tensors.values() if t.ndim == 3), default=0),
        flops=step.flops,
        training_flops=training_flops,
        generation=generation,
        training=training,
        disk=disk,
    )


@frozen
class Area:
    """Pictures of one pass."""

    width: int
    height: int
    batch: int

    def noise(self, backbone: Backbone) -> Tensor:
        """Their latents, (B, C, h, w) in the dtype of the denoiser."""
        spec, parameter = backbone.latent, next(backbone.trainable.parameters())
        rows, columns = self.height // spec.downscale, self.width // spec.downscale
        return torch.empty(self.batch, spec.channels, rows, columns, dtype=parameter.dtype, device="meta")


def _check_names(dtype: str, train_dtype: str, precision: str, optimizer: str, quantize: str | None) -> None:
    for kind, name, known in (
        ("dtype", dtype, DTYPES),
        ("dtype", train_dtype, DTYPES),
        ("precision", precision, PRECISIONS),
        ("optimizer", optimizer, OPTIMIZERS),
        ("quantisation", quantize, QUANTIZERS),
    ):
        if name is not None and name not in known:
            raise UnknownNameError(kind, name, known)


def shapes(model: str, dtype: str = "bfloat16", **options: Any) -> Backbone:
    """Make a model's backbone on the meta device: it computes shapes, reads no weights and holds none.

    Args:
        model: a registered checkpoint, a folder in the diffusers layout, or a Hub id.
        dtype: of the weights: "float32", "bfloat16" or "float16".
        options: of the backbone.

    Raises:
        UnknownNameError: there is no such model or dtype.
        CheckpointError: a configuration file is missing, or the Hub cannot be reached for it.

    >>> shapes("sd3-medium", downscale=16).latent.granularity
    32
    """
    if dtype not in DTYPES:
        raise UnknownNameError("dtype", dtype, DTYPES)
    source = _find(model)
    backbone: Backbone = create("backbone", source.backbone, source=source.location, **{**source.options, **options})
    backbone.load(Placement(torch.device("meta"), DTYPES[dtype]))
    return backbone


def _find(model: str) -> Model:
    """As `find_model`, but the configuration files that a plugin brings stand for a model on the Hub."""
    entry = registered_checkpoint(model)
    if entry is not None and entry.configs:
        return Model(ModelRef(model), entry.backbone, entry.configs, entry.options)
    found = find_model(ModelRef(model))
    return evolve(found, location=found.configs) if found.configs else found


def _sampling_step(backbone: Backbone, name: str, area: Area) -> Trace:
    preset = registry().preset(name, area.width, area.height, backbone.latent.downscale)
    guidance = backbone.defaults.guidance or (preset.guidance if preset else None)
    text = backbone.encode_text([""] * area.batch, "").to(device="meta")
    noise = area.noise(backbone)
    with torch.no_grad():
        return trace(lambda: backbone.velocity(noise, noise.new_empty(area.batch), text, guidance))


def _parts(backbone: Backbone, quantize: str | None) -> tuple[Part, ...]:
    found = []
    for name, module in backbone.components.items():
        size = _size(module.parameters()) + _size(module.buffers())
        if quantize is not None and module is backbone.trainable:
            linear = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
            scales = 0 if quantize == "nf4" else sum(len(w) * w.element_size() for w in linear)
            size += int(sum(w.numel() for w in linear) * QUANTIZERS[quantize]) + scales - _size(linear)
        found.append(Part(name, sum(p.numel() for p in module.parameters()), size))
    return tuple(found)


def _generation(backbone: Backbone, parts: tuple[Part, ...], step: Trace, area: Area) -> Memory:
    whole, least = (_autoencoding(backbone, area, limit) for limit in (None, 0))
    rows = {"weights": sum(part.size for part in parts), "one sampling step": step.peak}
    rows |= {"decoding, if there is room": whole, "decoding, at least": least}
    modules = backbone.components
    extra = {name: step.peak if module is backbone.trainable else 0 for name, module in modules.items()}
    extra["vae"] = least
    layers = {name: min(2 * _largest_layer(module), _size(module.parameters())) for name, module in modules.items()}
    peaks = {
        "all on the device": rows["weights"] + max(extra.values()),
        "offload model": max(part.size + extra[part.name] for part in parts),
        "offload group": max(
            (part.size if part.name == "vae" else layers[part.name]) + extra[part.name] for part in parts
        ),
    }
    return Memory(rows, peaks)


def _largest_layer(module: nn.Module) -> int:
    return max(_size(layer.parameters(recurse=False)) for layer in module.modules())


def _training(
    backbone: Backbone, area: Area, autocast: torch.dtype | None, optimizer: str, processes: int
) -> tuple[Memory, int]:
    module = backbone.trainable.train()
    if all(not parameter.requires_grad for parameter in module.parameters()):
        module.requires_grad_(True)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = sum(_size(part.parameters()) + _size(part.buffers()) for part in backbone.components.values())
    gradients, state = _size(trained), _state(trained, optimizer)
    buckets = gradients if processes > 1 else 0
    encoding = _autoencoding(backbone, area, 0, encoding=True)
    held = weights + state + buckets
    plain = _training_step(backbone, area, autocast)
    module.enable_gradient_checkpointing()  # type: ignore[operator]
    lean = _training_step(backbone, area, autocast)
    # AdamW makes one more copy of the weights while it updates them
    update = gradients + (gradients if optimizer == "adamw" else 0)
    rows = {"weights": weights, "gradients": gradients, "optimizer": state}
    rows |= {"gradients being exchanged": buckets} if buckets else {}
    rows |= {"activations": plain.kept, "activations, checkpointed": lean.kept, "encoding, at least": encoding}
    peaks = {
        "all activations kept": held + max(plain.peak, update, encoding),
        "gradient checkpointing": held + max(lean.peak, update, encoding),
    }
    return Memory(rows, peaks), plain.flops


def _training_step(backbone: Backbone, area: Area, autocast: torch.dtype | None) -> Trace:
    # the loop holds latents in float32, and text in the dtype of the text encoders
    noise = area.noise(backbone)
    noise = noise.float() if noise.dtype == torch.float32 or autocast is not None else noise
    text = backbone.encode_text([""] * area.batch).to(device="meta")
    found = trace(lambda: backbone.velocity(noise, noise.new_empty(area.batch), text), autocast)
    backbone.trainable.zero_grad(set_to_none=True)
    return found


def _autoencoding(backbone: Backbone, area: Area, memory_gb: float | None, *, encoding: bool = False) -> int:
    """What decoding or encoding one picture holds beside the weights: in bands, or else as the backbone does it."""
    vae: Any = backbone.components.get("vae")
    if hasattr(getattr(vae, "config", None), "down_block_types"):
        downscale = backbone.latent.downscale
        return footprint(vae, area.height, area.width, downscale=downscale, memory_gb=memory_gb, encoding=encoding)
    pixels, latent = torch.empty(1, 3, area.height, area.width, device="meta"), evolve(area, batch=1).noise(backbone)
    with torch.no_grad():
        return trace(lambda: backbone.encode_image(pixels) if encoding else backbone.decode(latent)).peak


def _files(backbone: Backbone, optimizer: str, adapter: bool) -> dict[str, int]:
    trained = [parameter for parameter in backbone.trainable.parameters() if parameter.requires_grad]
    whole = sum(_size(part.parameters()) + _size(part.buffers()) for part in backbone.components.values())
    return {
        "a checkpoint of the run": _size(trained) + _state(trained, optimizer),
        "the adapter" if adapter else "the trained model": _size(trained) if adapter else whole,
    }


def _state(trained: Iterable[Tensor], optimizer: str) -> int:
    """Two moments a weight: in its own dtype, or in 8 bits with a float32 scale for each 256."""
    weights = list(trained)
    if optimizer == "adamw-8bit":
        return int(sum(weight.numel() for weight in weights) * 2 * (1 + 4 / 256))
    return 2 * _size(weights)


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
