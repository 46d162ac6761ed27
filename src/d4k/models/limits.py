"""What asks for more memory than there is, told by arithmetic before anything is computed.

The bounds are from below: what they refuse cannot work. What they let pass may still not fit; `d4k plan` says more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from d4k.autoencoder import footprint
from d4k.errors import ConfigError
from d4k.machine import free_bytes
from d4k.models.placement import AUTOENCODER, computing_device, computing_dtype
from d4k.protocols import Backbone

__all__ = ["adapter_numbers", "refuse_large_picture", "refuse_large_training", "refuse_too_large"]

FLOATS = 5
"""Bytes of a channel of a pixel: of a float and of the finished picture."""

GB = 1e9


def refuse_too_large(backbone: Backbone, width: int, height: int, *, batch_size: int = 1) -> None:
    """Refuse pictures that need more memory than is free, before the first step.

    Args:
        backbone: loaded.
        width: of the pictures, in pixels.
        height: likewise.
        batch_size: pictures at a time.

    Raises:
        ConfigError: there is too little memory; it says how much is needed at least, and how much is free.
    """
    device = computing_device(backbone.trainable)
    if device.type == "meta":
        return
    spec, dtype = backbone.latent, computing_dtype(backbone.trainable)
    latent = batch_size * spec.channels * (height // spec.downscale) * (width // spec.downscale)
    tokens = batch_size * (height // spec.granularity) * (width // spec.granularity)
    step = 2 * 4 * latent + 4 * tokens * _token_width(backbone.trainable) * dtype.itemsize
    many = f"{batch_size} pictures" if batch_size > 1 else "a picture"
    asked = f"{many} of {width}x{height} pixels"
    _refuse(f"a sampling step for {asked}", step, device)
    _refuse(f"the starting noise of {asked}", 4 * latent, torch.device("cpu"))
    _refuse(f"decoding a picture of {width}x{height} pixels", _decoding(backbone, width, height), device)
    _refuse(f"a finished picture of {width}x{height} pixels", 5 * 3 * width * height, torch.device("cpu"))


def refuse_large_training(
    backbone: Backbone, width: int, height: int, *, batch_size: int, trained: int, state: float = 8.0, share: int = 1
) -> None:
    """Refuse a run that needs more memory than is free, before anything is made for it.

    Args:
        backbone: loaded.
        width: of the pictures, in pixels.
        height: likewise.
        batch_size: pictures of one forward pass.
        trained: how many numbers are trained, see `adapter_numbers`; 0 is all of the denoiser's.
        state: bytes of the optimizer's state for each number that is trained in float32.
        share: processes that share weights and state between them.

    Raises:
        ConfigError: there is too little memory; it says how much is needed at least, and how much is free.
    """
    device = computing_device(backbone.trainable)
    if device.type == "meta":
        return
    spec, dtype = backbone.latent, computing_dtype(backbone.trainable)
    if trained:
        _refuse("training the adapter, of that rank,", int(trained * (4 + 4 + state)) // share, device)
    else:
        weights = sum(parameter.numel() for parameter in backbone.trainable.parameters())
        _refuse("training all weights", int(weights * (dtype.itemsize + state)) // share, device)
    tokens = batch_size * (height // spec.granularity) * (width // spec.granularity)
    latent = batch_size * spec.channels * (height // spec.downscale) * (width // spec.downscale)
    many = f"{batch_size} pictures" if batch_size > 1 else "a picture"
    need = 3 * 4 * latent + 4 * tokens * _token_width(backbone.trainable) * min(dtype.itemsize, 2)
    _refuse(f"a training step for {many} of {width}x{height} pixels", need, device)
    _refuse(f"{many} of {width}x{height} pixels", 4 * 3 * batch_size * width * height, torch.device("cpu"))


def adapter_numbers(module: nn.Module, targets: Iterable[str], rank: int) -> int:
    """How many numbers an adapter of a denoiser has.

    Args:
        module: the denoiser.
        targets: ends of the names of the layers that get one.
        rank: of each update.
    """
    ends = tuple(f".{target}" for target in targets)
    layers = [layer for name, layer in module.named_modules() if f".{name}".endswith(ends)]
    linear = sum(layer.in_features + layer.out_features for layer in layers if isinstance(layer, nn.Linear))
    return rank * linear


def refuse_large_picture(width: int, height: int, device: torch.device) -> None:
    """Refuse to enlarge a picture to a size that there is no memory for.

    Args:
        width: of the result, in pixels.
        height: likewise.
        device: that enlarges.

    Raises:
        ConfigError: there is too little memory; it says how much is needed at least, and how much is free.
    """
    _refuse(f"a picture of {width}x{height} pixels", FLOATS * 3 * width * height, device)


def _refuse(what: str, need: int, device: torch.device) -> None:
    free = free_bytes(device)
    if need > free:
        raise ConfigError(
            f"{what} takes at least {need / GB:,.1f} GB on the {device.type} beside the weights, and {free / GB:,.1f} "
            "GB are free: ask for less. Try: d4k plan"
        )


def _decoding(backbone: Backbone, width: int, height: int) -> int:
    """Bytes that decoding one picture takes at least, by the autoencoder in bands or else by the picture alone."""
    vae: Any = backbone.components.get(AUTOENCODER)
    blocks = getattr(getattr(vae, "config", None), "up_block_types", ())
    if set(blocks) != {"UpDecoderBlock2D"}:
        return 3 * width * height * computing_dtype(backbone.trainable).itemsize
    return footprint(vae, height, width, downscale=backbone.latent.downscale, memory_gb=0)


def _token_width(module: Any) -> int:
    """Numbers of a token in a denoiser of diffusers; 0 where its configuration does not say."""
    config = getattr(module, "config", None)
    heads, depth = (getattr(config, name, None) for name in ("num_attention_heads", "attention_head_dim"))
    return heads * depth if isinstance(heads, int) and isinstance(depth, int) else 0
