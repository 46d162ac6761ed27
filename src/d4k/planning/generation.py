"""Memory and operations of generating."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from d4k.autoencoder import footprint
from d4k.models import AUTOENCODER, QUANTIZERS, ones_of
from d4k.planning.shapes import refusing
from d4k.planning.trace import Trace, trace
from d4k.planning.values import Memory, Part
from d4k.plugins import registry
from d4k.protocols import Backbone

__all__ = ["Area", "autoencoding", "generating", "measure_parts", "sampling_step", "total"]


@frozen
class Area:
    """Pictures of one pass.

    Args:
        width: pixels.
        height: pixels.
        batch: how many pictures.
    """

    width: int
    height: int
    batch: int

    def noise(self, backbone: Backbone) -> Tensor:
        """Their latents, (B, C, h, w) in the dtype of the denoiser."""
        spec, parameter = backbone.latent, next(backbone.trainable.parameters())
        rows, columns = self.height // spec.downscale, self.width // spec.downscale
        return torch.empty(self.batch, spec.channels, rows, columns, dtype=parameter.dtype, device="meta")


def total(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure_parts(backbone: Backbone, quantize: str | None = None) -> tuple[Part, ...]:
    """Numbers and bytes of each part; with `quantize`, the denoiser's linear layers are in fewer bits."""
    found = []
    for name, module in backbone.components.items():
        size = total(module.parameters()) + total(module.buffers())
        if quantize is not None and module is backbone.trainable:
            linear = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
            size += sum(QUANTIZERS[quantize].size(weight) for weight in linear) - total(linear)
        found.append(Part(name, sum(p.numel() for p in module.parameters()), size))
    return tuple(found)


def sampling_step(backbone: Backbone, name: str, area: Area) -> Trace:
    """One sampling step, with the guidance that the model or its preset asks for."""
    preset = registry().preset(name, area.width, area.height, backbone.latent.downscale)
    guidance = backbone.defaults.guidance or (preset.guidance if preset else None)
    with torch.no_grad(), refusing(type(backbone.trainable).__name__, "is sampled"):
        text = backbone.encode_text([""] * area.batch, "").to(device="meta")
        noise = area.noise(backbone)
        sigma = torch.empty(area.batch, device="meta")
        ones = [sigma, *ones_of(text)]
        return trace(lambda: backbone.velocity(noise, sigma, text, guidance, 1.0), ones=ones)


def generating(backbone: Backbone, parts: tuple[Part, ...], step: Trace, area: Area) -> Memory:
    """What generating holds: with everything on the device, and with weights offloaded."""
    whole, least = (autoencoding(backbone, area, limit) for limit in (None, 0))
    rows = {"weights": sum(part.size for part in parts), "one sampling step": step.peak}
    rows |= {"decoding, if there is room": whole, "decoding, at least": least}
    modules = backbone.components
    extra = {name: step.peak if module is backbone.trainable else 0 for name, module in modules.items()}
    extra[AUTOENCODER] = least
    layers = {name: min(2 * _largest_layer(module), total(module.parameters())) for name, module in modules.items()}
    peaks = {
        "all on the device": rows["weights"] + max(extra.values()),
        "offload model": max(part.size + extra[part.name] for part in parts),
        "offload group": max(
            (part.size if part.name == AUTOENCODER else layers[part.name]) + extra[part.name] for part in parts
        ),
    }
    return Memory(rows, peaks)


def _largest_layer(module: nn.Module) -> int:
    return max(total(layer.parameters(recurse=False)) for layer in module.modules())


def autoencoding(backbone: Backbone, area: Area, memory_gb: float | None, *, encoding: bool = False) -> int:
    """What decoding or encoding one picture holds beside the weights: in bands, or else as the backbone does it."""
    vae: Any = backbone.components.get(AUTOENCODER)
    blocks = [getattr(getattr(vae, "config", None), f"{way}_block_types", ()) for way in ("down", "up")]
    if [set(kinds) for kinds in blocks] == [{"DownEncoderBlock2D"}, {"UpDecoderBlock2D"}]:
        downscale = backbone.latent.downscale
        return footprint(vae, area.height, area.width, downscale=downscale, memory_gb=memory_gb, encoding=encoding)
    pixels, latent = torch.empty(1, 3, area.height, area.width, device="meta"), evolve(area, batch=1).noise(backbone)
    doing = "encodes a picture" if encoding else "decodes a picture"
    with torch.no_grad(), refusing(type(vae or backbone).__name__, doing):
        return trace(lambda: backbone.encode_image(pixels) if encoding else backbone.decode(latent)).peak
