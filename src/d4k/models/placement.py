"""Where a loaded model's weights rest and how they are held: a thin layer over diffusers' own mechanisms."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from attrs import frozen

from d4k.config import PRECISIONS
from d4k.errors import ConfigError, UnknownNameError
from d4k.protocols import Placement
from d4k.upstream import accelerate_hook, has_hooks

__all__ = [
    "AUTOENCODER",
    "DENOISER",
    "DTYPES",
    "OFFLOADS",
    "QUANTIZERS",
    "Quantizer",
    "autocast_dtype",
    "check_placement",
    "computing_device",
    "computing_dtype",
    "offload_part",
    "place",
    "quantization",
    "resident",
    "training_dtype",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OFFLOADS = ("model", "group", "disk")
"""Where weights rest while they are not computed with: `model` and `group` in CPU memory, `disk` in files."""


@frozen
class Quantizer:
    """A way to hold a denoiser's linear layers in fewer bits.

    Args:
        package: that does it.
        bytes_each: of one weight, the scales of its group included.
        scale_each_row: whether each row has a scale besides, in the dtype of the weights.
    """

    package: str
    bytes_each: float
    scale_each_row: bool = False

    def size(self, weight: torch.Tensor) -> int:
        """Bytes of a weight (rows, columns) that is held so."""
        scales = len(weight) * weight.element_size() if self.scale_each_row else 0
        return int(weight.numel() * self.bytes_each) + scales


QUANTIZERS: Mapping[str, Quantizer] = {
    "int8": Quantizer("torchao", 1.0, scale_each_row=True),
    "float8": Quantizer("torchao", 1.0, scale_each_row=True),
    "nf4": Quantizer("bitsandbytes", 0.5 + 4 / 64),  # a float32 scale for each 64
}
"""How a denoiser's weights are held in fewer bits."""


def autocast_dtype(precision: str) -> torch.dtype | None:
    """The dtype of products under mixed precision, a key of `d4k.config.PRECISIONS`; None for "no"."""
    return None if precision == "no" else DTYPES[PRECISIONS[precision]]


def training_dtype(precision: str, *, adapter: bool, optimizer: str = "adamw") -> str:
    """The dtype that a model is loaded in to be trained, a key of `DTYPES`.

    Weights that are trained need all their digits; those under an adapter no more than they are computed with.

    Args:
        precision: mixed precision of the run: "no", "bf16" or "fp16".
        adapter: whether an adapter is trained in place of the weights.
        optimizer: name; `adamw-bf16` rounds at random, so that bfloat16 has digits enough for it.

    >>> training_dtype("bf16", adapter=True), training_dtype("bf16", adapter=False)
    ('bfloat16', 'float32')
    """
    return PRECISIONS[precision] if adapter else "bfloat16" if optimizer == "adamw-bf16" else "float32"


DENOISER = "transformer"
"""What diffusers' pipelines call the part that is quantised."""


AUTOENCODER = "vae"


def check_placement(placement: Placement) -> None:
    """Refuse what cannot work here, before anything is read.

    Raises:
        UnknownNameError: there is no such offload or quantisation.
        ConfigError: a device, a package or another setting stands against it; the message says what to do.
    """
    offload, quantize = placement.offload, placement.quantize
    if placement.memory_gb is not None and not 0 < placement.memory_gb < math.inf:
        raise ConfigError(f"memory_gb must be a number of gigabytes above 0, got {placement.memory_gb}")
    if offload is not None and offload not in OFFLOADS:
        raise UnknownNameError("offload", offload, OFFLOADS)
    if quantize is not None and quantize not in QUANTIZERS:
        raise UnknownNameError("quantize", quantize, QUANTIZERS)
    if offload in ("model", "group") and placement.device.type == "cpu":
        raise ConfigError(
            f"offload='{offload}' keeps weights in CPU memory while an accelerator computes, and this device is the "
            "CPU: leave it out; to hold less in memory choose offload='disk' or quantize='int8'"
        )
    if offload == "disk" and quantize is not None:
        raise ConfigError("offload='disk' writes plain tensors, not quantised ones: leave out one of the two")
    if quantize is not None and find_spec(QUANTIZERS[quantize].package) is None:
        others = sorted(name for name, way in QUANTIZERS.items() if find_spec(way.package))
        choice = f", or choose one of {', '.join(others)}" if others else ""
        package = QUANTIZERS[quantize].package
        raise ConfigError(f"quantize='{quantize}' needs {package}: pip install {package}{choice}")


def quantization(placement: Placement) -> Any:
    """What diffusers' `from_pretrained` of a denoiser takes as `quantization_config`; None for plain weights."""
    if placement.quantize is None:
        return None
    if placement.quantize == "nf4":
        from diffusers import BitsAndBytesConfig

        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=placement.dtype)
    from diffusers import TorchAoConfig
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig() if placement.quantize == "int8" else Float8WeightOnlyConfig())


def place(pipeline: Any, placement: Placement) -> Any:
    """Put a diffusers pipeline where its placement says.

    Returns:
        The pipeline. With an offload, wrap what calls the autoencoder's own modules in `resident`.
    """
    if placement.offload is None:
        return pipeline.to(placement.device)
    if placement.offload == "model":
        pipeline.enable_model_cpu_offload(device=placement.device)
        return pipeline
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            offload_part(part, name, placement)
    return pipeline


def offload_part(part: torch.nn.Module, name: str, placement: Placement) -> None:
    """Offload one part of a pipeline layer by layer, once: to CPU memory, or to a temporary folder that goes with it.

    The autoencoder moves as a whole: its modules are called one by one, in an order of their own.
    """
    if has_hooks(part):
        return
    if name == AUTOENCODER:
        from accelerate import cpu_offload_with_hook

        cpu_offload_with_hook(part, placement.device)
        return
    from diffusers.hooks import apply_group_offloading

    folder = None
    if placement.offload == "disk":
        # one folder a part: diffusers names its files by the module's place in the part, which two parts may share
        folder = tempfile.mkdtemp(prefix=f"d4k-{name}-")
        weakref.finalize(part, shutil.rmtree, folder, ignore_errors=True)
        _untie(part)
    streams = placement.device.type == "cuda"
    apply_group_offloading(
        part,
        onload_device=placement.device,
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=streams,
        low_cpu_mem_usage=streams,
        offload_to_disk_path=folder,
    )


def _untie(part: torch.nn.Module) -> None:
    """Give every layer weights of its own: diffusers writes a layer's and empties them before it comes to the next."""
    seen = set()
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                setattr(module, name, torch.nn.Parameter(parameter.detach().clone(), requires_grad=False))
            seen.add(id(parameter))


@contextmanager
def resident(module: Any) -> Iterator[None]:
    """Hold an offloaded module on its computing device within a block that calls the modules inside it.

    diffusers' hooks fire on `forward` (and on `encode` and `decode`); exact autoencoding calls what lies below. On
    entering, what ran before is moved away, as those hooks do. Does nothing to a module that is not offloaded.

    Args:
        module: such as `pipeline.vae`.
    """
    hook = accelerate_hook(module)
    if hook is None:
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        module.to("cpu")


def computing_device(module: Any) -> torch.device:
    """Where a module computes: that of its weights, unless they are offloaded."""
    device = getattr(accelerate_hook(module), "execution_device", None) or getattr(module, "device", None)
    return next(module.parameters()).device if device is None else torch.device(device)


def computing_dtype(module: Any) -> torch.dtype:
    """The dtype a module takes, also where its weights are held in fewer bits."""
    dtype = getattr(module, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else next(module.parameters()).dtype
