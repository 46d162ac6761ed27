"""FLUX.1 behind d4k's calling convention; the diffusers pipeline does the text and the weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attrs import define, field
from diffusers import FluxPipeline
from torch import Tensor

from d4k import Conditioning, LatentSpec, Placement, SamplingDefaults, backbones
from d4k.autoencoder import Posterior, own_downscale
from d4k_flux.positions import POSITIONS, TEMPERATURES, attach_positions, token_positions

__all__ = ["FluxBackbone", "pack", "unpack"]

DOWNSCALES = (8, 16)
PATCH = 2
TEXT_TOKENS = 512
TRAINED_GUIDANCE = 3.5


@define(eq=False)
class FluxBackbone:
    """FLUX.1: double and single blocks, rotary positions, T5 and a pooled CLIP, guidance as an input of the model.

    Args:
        source: folder in the diffusers layout, or a Hub id.
        positions: where tokens of larger images lie. `native` counts them, as diffusers does; `interpolate` squeezes
            them into the range the model was trained on; `ntk` slows the low frequencies only; `yarn` interpolates
            the low ones and keeps the high ones; `resonance-yarn` also makes their wavelengths whole numbers of
            tokens.
        temperature: of attention in larger images. `trained` is the model's own; `proportional` keeps the entropy of
            attention as tokens grow in number; `yarn` is that of YaRN. `auto` is what goes with `positions`: `yarn` for
            `yarn` and `resonance-yarn`, else `trained`.
        trained_size: pixels a side the model was trained at; None is what diffusers samples by default.
        text_tokens: T5 tokens, at most what its tokenizer takes; None is 512, diffusers' default, or else that limit,
            and is replaced by it on loading.
        downscale: pixels a latent row stands for: 8, or 16 for the partitioned autoencoder of Diffusion-4K; None is
            what the autoencoder was made for.
        steps: how many to sample with by default; None leaves it to the presets.
        guidance: embedded scale to sample with by default; None leaves it to the presets.

    Source: Black Forest Labs, FLUX.1, https://github.com/black-forest-labs/flux.
    """

    source: str = field(validator=backbones.text())
    positions: str = field(default="native", validator=backbones.one_of(*POSITIONS))
    temperature: str = field(default="auto", validator=backbones.one_of(*TEMPERATURES))
    trained_size: int | None = field(default=None, validator=backbones.optional(backbones.whole(1)))
    text_tokens: int | None = field(default=None, validator=backbones.optional(backbones.whole(1)))
    downscale: int | None = field(default=None, validator=backbones.optional(backbones.one_of(*DOWNSCALES)))
    steps: int | None = field(default=None, validator=backbones.optional(backbones.whole(1)))
    guidance: float | None = field(default=None, validator=backbones.optional(backbones.number(0)))
    pipeline: Any = field(default=None, init=False, repr=False)
    trainable: Any = field(default=None, init=False, repr=False)
    autoencoder: Any = field(default=None, init=False, repr=False)
    rotary: Any = field(default=None, init=False, repr=False)

    def load(self, placement: Placement) -> None:
        """Read the weights; see `d4k.Backbone.load`."""
        self.attach(backbones.load_pipeline(FluxPipeline, self.source, placement), placement.memory_gb)

    def attach(self, pipeline: FluxPipeline, memory_gb: float | None = None) -> None:
        """Use a pipeline that is already in memory; `memory_gb` bounds what its autoencoder uses."""
        backbones.freeze(pipeline)
        self.pipeline, self.trainable = pipeline, pipeline.transformer
        downscale = self.downscale or own_downscale(pipeline.vae)
        self.autoencoder = backbones.ExactAutoencoder(pipeline.vae, downscale, memory_gb)
        self.text_tokens = backbones.text_length(self.text_tokens, pipeline.tokenizer_2, TEXT_TOKENS)
        trained = self._trained_patches  # refuses a trained_size that is too small
        self.rotary = attach_positions(pipeline.transformer, self.positions, self.temperature, trained)

    @property
    def latent(self) -> LatentSpec:
        """The latent space of the loaded model; its rotary positions go on for ever."""
        channels = self.pipeline.transformer.config.in_channels // PATCH**2
        return LatentSpec(channels, self.autoencoder.downscale, PATCH, downscales=DOWNSCALES)

    @property
    def defaults(self) -> SamplingDefaults:
        """Size to sample at, and the steps and guidance that the checkpoint asks for."""
        embedded = TRAINED_GUIDANCE if self.pipeline.transformer.config.guidance_embeds else None
        return SamplingDefaults(self._trained_patches * self.latent.granularity, self.steps, self.guidance, embedded)

    @property
    def trained_options(self) -> dict[str, Any]:
        """What sampling must share with training: positions, temperature, text length, the autoencoder's stride."""
        told = {"positions": self.positions, "temperature": self.temperature}
        return told | {"text_tokens": self.text_tokens, "downscale": self.autoencoder.downscale}

    @property
    def components(self) -> dict[str, torch.nn.Module]:
        """Transformer, autoencoder and text encoders, as the diffusers pipeline names them."""
        return backbones.modules(self.pipeline)

    @property
    def _trained_patches(self) -> int:
        return backbones.trained_patches(self.trained_size, self.latent, self.pipeline.default_sample_size)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
        """Encode prompts: `states` (B, N, D) and `pooled` (B, P). A negative prompt has no effect on this backbone."""
        if negative:
            warnings.warn("flux has no negative prompt (its guidance is embedded): it is ignored", stacklevel=2)
        if self.pipeline.device.type == "meta":
            config = self.pipeline.transformer.config
            states = torch.empty(len(prompts), self.text_tokens or 0, config.joint_attention_dim, device="meta")
            pooled = states.new_empty(len(prompts), config.pooled_projection_dim)
            return Conditioning({"states": states, "pooled": pooled}).to(dtype=self.pipeline.dtype)
        states, pooled, _ = self.pipeline.encode_prompt(list(prompts), None, max_sequence_length=self.text_tokens)
        return Conditioning({"states": states, "pooled": pooled})

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels to latents; see `d4k.autoencoder.encode`."""
        return self.autoencoder.encode(pixels)  # type: ignore[no-any-return]

    def encode_posterior(self, pixels: Tensor) -> Posterior:
        """Pixels to a distribution of latents; see `d4k.autoencoder.posterior`."""
        return self.autoencoder.posterior(pixels)  # type: ignore[no-any-return]

    def decode(self, latent: Tensor) -> Tensor:
        """Latents to pixels; see `d4k.autoencoder.decode`."""
        return self.autoencoder.decode(latent)  # type: ignore[no-any-return]

    def velocity(
        self,
        noisy: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
        progress: float | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Predict the velocity; `guidance` is an input of the model; None is 3.5, what it was trained with."""
        given = conditioning.tensors
        scale = None
        if self.pipeline.transformer.config.guidance_embeds:
            scale = torch.full_like(sigma, TRAINED_GUIDANCE if guidance is None else guidance, dtype=torch.float32)
        height, width = noisy.shape[-2:]
        positions = token_positions(height // PATCH, width // PATCH, self._position_step(height, width))
        if self.rotary is not None:
            self.rotary.cover(height // PATCH, width // PATCH, given["states"].shape[1])
        tokens = self.trainable(
            hidden_states=pack(noisy),
            timestep=sigma,
            guidance=scale,
            encoder_hidden_states=given["states"],
            pooled_projections=given["pooled"],
            # float32 in every dtype of the weights: bfloat16 counts in steps of 2 beyond 256, and of 1/4 beyond 32
            txt_ids=positions.new_zeros(given["states"].shape[1], 3, device=noisy.device),
            img_ids=positions.to(noisy.device),
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

    def _position_step(self, height: int, width: int) -> float:
        if self.positions != "interpolate":
            return 1.0
        return float(min(1.0, self._trained_patches * PATCH / (height * width) ** 0.5))

    def scheduler(self, steps: int, height: int, width: int, shift: float | None = None) -> Any:
        """A fresh scheduler with its timesteps set, shifted by the number of tokens where its checkpoint says so."""
        sigmas = torch.linspace(1.0, 1 / steps, steps, dtype=torch.float64).tolist()
        tokens = self.latent.tokens(height, width)
        return backbones.flow_scheduler(self.pipeline.scheduler, steps, tokens, shift=shift, sigmas=sigmas)

    def save(self, folder: Path) -> None:
        """Write the model in the diffusers layout."""
        backbones.save_pipeline(self.pipeline, folder)


def pack(latent: Tensor) -> Tensor:
    """Latents (B, C, h, w) to tokens (B, h/2 * w/2, 4 C) of two by two.

    >>> pack(torch.zeros(1, 16, 8, 6)).shape
    torch.Size([1, 12, 64])
    """
    return F.pixel_unshuffle(latent, PATCH).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `pack`, for a latent of `height` x `width`."""
    grid = tokens.transpose(1, 2).reshape(len(tokens), -1, height // PATCH, width // PATCH)
    return F.pixel_shuffle(grid, PATCH)
