"""Stable Diffusion 3 behind d4k's calling convention; the diffusers pipeline does the text and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attrs import converters, define, field
from attrs.validators import ge, in_, instance_of, optional
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from torch import Tensor

from d4k import Conditioning, ConfigError, LatentSpec, Placement, SamplingDefaults
from d4k.autoencoder import decode, encode
from d4k.backbones import load_pipeline, resident, save_pipeline
from d4k.flow import resolution_shift

__all__ = ["SD3Backbone"]

DOWNSCALES = (8, 16)
TEXT_TOKENS = 256


@define(eq=False)
class SD3Backbone:
    """SD3 and SD3.5: MMDiT with a position table, CLIP-L, CLIP-G and T5, classifier-free guidance.

    Args:
        source: folder in the diffusers layout, or a Hub id.
        positions: `native` takes the middle of the position table, as diffusers does, which covers up to
            `pos_embed_max_size` patches a side; `interpolate` stretches the part of the table that the model was
            trained on over larger images, so that any size is covered.
        trained_size: pixels a side the model was trained at; None is what its configuration says.
        text_tokens: T5 tokens, at most what its tokenizer takes; None is 256, diffusers' default, or else that limit,
            and is replaced by it on loading.
        downscale: pixels a latent row stands for: 8, or 16 for the partitioned autoencoder of Diffusion-4K; None is
            what the autoencoder was made for.
        steps: Euler steps to sample with by default; None leaves it to the presets.
        guidance: scale to sample with by default; None leaves it to the presets.

    Source: Esser et al. 2024, arXiv 2403.03206.
    """

    source: str = field(validator=instance_of(str))
    positions: str = field(default="native", validator=in_(("native", "interpolate")))
    trained_size: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    text_tokens: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    downscale: int | None = field(default=None, validator=optional(in_(DOWNSCALES)))
    steps: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    guidance: float | None = field(default=None, converter=converters.optional(float), validator=optional(ge(0)))
    pipeline: Any = field(default=None, init=False, repr=False)
    _trainable: Any = field(default=None, init=False, repr=False)
    _memory_gb: float | None = field(default=None, init=False, repr=False)

    def load(self, placement: Placement) -> None:
        """Read the weights; see `d4k.Backbone.load`."""
        self._memory_gb = placement.memory_gb
        self.attach(load_pipeline(StableDiffusion3Pipeline, self.source, placement))

    def attach(self, pipeline: StableDiffusion3Pipeline) -> None:
        """Use a pipeline that is already in memory."""
        self.pipeline = pipeline
        self._trainable = pipeline.transformer
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3):
            if part is not None:
                part.requires_grad_(False)
        self.text_tokens = text_length(self.text_tokens, pipeline.tokenizer_3)
        if self.positions == "interpolate":
            stretch_positions(pipeline.transformer.pos_embed, self._trained_patches)

    @property
    def latent(self) -> LatentSpec:
        """The latent space of the loaded model."""
        config, downscale = self.pipeline.transformer.config, self._downscale
        covered = config.pos_embed_max_size * config.patch_size * downscale
        limit = covered if self.positions == "native" else None
        return LatentSpec(config.in_channels, downscale, config.patch_size, limit, DOWNSCALES)

    @property
    def defaults(self) -> SamplingDefaults:
        """Size to sample at, and the steps and guidance that the checkpoint asks for."""
        size = self._trained_patches * self.latent.granularity
        return SamplingDefaults(size, self.steps, self.guidance)

    @property
    def trainable(self) -> torch.nn.Module:
        """The transformer, or what it was wrapped in."""
        module: torch.nn.Module = self._trainable
        return module

    @trainable.setter
    def trainable(self, module: torch.nn.Module) -> None:
        self._trainable = module

    @property
    def trained_options(self) -> dict[str, Any]:
        """What sampling must share with training: positions, text length and the autoencoder's stride."""
        return {"positions": self.positions, "text_tokens": self.text_tokens, "downscale": self._downscale}

    @property
    def components(self) -> dict[str, torch.nn.Module]:
        """Transformer, autoencoder and text encoders, as the diffusers pipeline names them."""
        return {name: part for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)}

    @property
    def _downscale(self) -> int:
        return self.downscale or int(self.pipeline.vae_scale_factor)

    @property
    def _trained_patches(self) -> int:
        config = self.pipeline.transformer.config
        if self.trained_size is None:
            return int(config.sample_size // config.patch_size)
        return int(self.trained_size // (self._downscale * config.patch_size))

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
        """Encode prompts: `states` (B, N, D) and `pooled` (B, P), and the same of `negative` where given."""
        if self.pipeline.device.type == "meta":
            return self._shapes(len(prompts), negative is not None)
        states, negative_states, pooled, negative_pooled = self.pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            do_classifier_free_guidance=negative is not None,
            negative_prompt=None if negative is None else [negative] * len(prompts),
            max_sequence_length=self.text_tokens,
        )
        tensors = {"states": states, "pooled": pooled}
        if negative is not None:
            tensors |= {"negative_states": negative_states, "negative_pooled": negative_pooled}
        return Conditioning(tensors)

    def _shapes(self, count: int, guided: bool) -> Conditioning:
        config = self.pipeline.transformer.config
        length = self.pipeline.tokenizer_max_length + (self.text_tokens or 0)
        states = torch.empty(count, length, config.joint_attention_dim, device="meta", dtype=self.pipeline.dtype)
        pooled = states.new_empty(count, config.pooled_projection_dim)
        names = ("", "negative_") if guided else ("",)
        return Conditioning({f"{n}{k}": v for n in names for k, v in (("states", states), ("pooled", pooled))})

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels to latents; see `d4k.autoencoder.encode`."""
        with resident(self.pipeline.vae):
            return encode(self.pipeline.vae, pixels, downscale=self._downscale, memory_gb=self._memory_gb)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents to pixels; see `d4k.autoencoder.decode`."""
        with resident(self.pipeline.vae):
            return decode(self.pipeline.vae, latent, downscale=self._downscale, memory_gb=self._memory_gb)

    def velocity(
        self,
        noisy: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
        progress: float | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Predict the velocity; guided when `guidance` is above 1 and the conditioning holds a negative prompt."""
        text = conditioning.tensors
        if guidance is None or guidance <= 1 or "negative_states" not in text:
            return self._predict(noisy, sigma, text["states"], text["pooled"])
        both = self._predict(
            torch.cat([noisy, noisy]),
            torch.cat([sigma, sigma]),
            torch.cat([text["negative_states"], text["states"]]),
            torch.cat([text["negative_pooled"], text["pooled"]]),
        )
        negative, positive = both.chunk(2)
        return negative + guidance * (positive - negative)

    def _predict(self, noisy: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        output: Tensor = self._trainable(
            hidden_states=noisy,
            timestep=sigma * 1000,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return output

    def scheduler(
        self, steps: int, height: int, width: int, shift: float | None = None
    ) -> FlowMatchEulerDiscreteScheduler:
        """A fresh scheduler with its timesteps set, shifted by the number of tokens where its checkpoint says so."""
        chosen = {} if shift is None else {"shift": shift, "use_dynamic_shifting": False}
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config, **chosen)
        tokens = (height // self.latent.granularity) * (width // self.latent.granularity)
        mu = (
            resolution_shift(scheduler.config, tokens, max_shift=1.16)
            if scheduler.config.use_dynamic_shifting
            else None
        )
        scheduler.set_timesteps(steps, device=self.pipeline.device, mu=mu)
        return scheduler

    def save(self, folder: Path) -> None:
        """Write the model in the diffusers layout."""
        save_pipeline(self.pipeline, folder)


def text_length(asked: int | None, tokenizer: Any) -> int:
    """T5 tokens to encode: as asked, or else diffusers' default as far as the tokenizer goes."""
    limit = TEXT_TOKENS if tokenizer is None else int(tokenizer.model_max_length)
    if asked is not None and asked > limit:
        raise ConfigError(f"text_tokens is {asked}, but the tokenizer of this model takes at most {limit}")
    return asked or min(TEXT_TOKENS, limit)


def stretch_positions(patch_embed: Any, trained: int) -> None:
    """Make a diffusers `PatchEmbed` stretch the trained middle of its table over larger images.

    Args:
        patch_embed: with a `pos_embed` table of (1, max_size**2, D).
        trained: patches a side of the pretraining images. An image of no more patches is served as before; a larger
            one of h x w patches samples the table every `trained / sqrt(h * w)` entries, about the same centre.
    """
    native = patch_embed.cropped_pos_embed

    def stretched(height: int, width: int) -> Tensor:
        rows, columns = height // patch_embed.patch_size, width // patch_embed.patch_size
        step = trained / (rows * columns) ** 0.5
        if step >= 1:
            return native(height, width)  # type: ignore[no-any-return]
        side = patch_embed.pos_embed_max_size
        table = patch_embed.pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        # in grid_sample's units the table's entries lie at (2 i + 1) / side - 1
        axes = [(torch.arange(n, device=table.device) - (n - 1) / 2) * step * 2 / side for n in (rows, columns)]
        y, x = torch.meshgrid(*axes, indexing="ij")
        grid = torch.stack([x, y], -1)[None].float()
        sampled = F.grid_sample(table.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
        return sampled.flatten(2).transpose(1, 2).to(patch_embed.pos_embed.dtype)

    patch_embed.cropped_pos_embed = stretched
