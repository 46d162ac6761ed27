"""Stable Diffusion 3 behind d4k's calling convention; the diffusers pipeline does the text and the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from d4k import Conditioning, LatentSpec, Placement, SamplingDefaults, backbones
from d4k.autoencoder import Posterior, own_downscale
from d4k_sd3.attention import TEMPERATURES, attach_temperature
from d4k_sd3.positions import POSITIONS, stretch_positions

__all__ = ["SD3Backbone"]

DOWNSCALES = (8, 16)
TEXT_TOKENS = 256
BEYOND = "the backbone option positions='interpolate', which covers any size"


@define(eq=False)
class SD3Backbone:
    """SD3 and SD3.5: MMDiT with a position table, CLIP-L, CLIP-G and T5, classifier-free guidance.

    Args:
        source: folder in the diffusers layout, or a Hub id.
        positions: `native` takes the middle of the position table, as diffusers does, which covers up to
            `pos_embed_max_size` patches a side; `interpolate` stretches the part of the table that the model was
            trained on over larger images, so that any size is covered.
        temperature: of attention in larger images. `trained` is the model's own; `proportional` keeps the entropy of
            attention as tokens grow in number.
        trained_size: pixels a side the model was trained at; None is what its configuration says.
        text_tokens: T5 tokens, at most what its tokenizer takes; None is 256, diffusers' default, or else that limit,
            and is replaced by it on loading.
        downscale: pixels a latent row stands for: 8, or 16 for the partitioned autoencoder of Diffusion-4K; None is
            what the autoencoder was made for.
        steps: how many to sample with by default; None leaves it to the presets.
        guidance: scale to sample with by default; None leaves it to the presets.

    Source: Esser et al. 2024, arXiv 2403.03206.
    """

    source: str = field(validator=backbones.text())
    positions: str = field(default="native", validator=backbones.one_of(*POSITIONS))
    temperature: str = field(default="trained", validator=backbones.one_of(*TEMPERATURES))
    trained_size: int | None = field(default=None, validator=backbones.optional(backbones.whole(1)))
    text_tokens: int | None = field(default=None, validator=backbones.optional(backbones.whole(1)))
    downscale: int | None = field(default=None, validator=backbones.optional(backbones.one_of(*DOWNSCALES)))
    steps: int | None = field(default=None, validator=backbones.optional(backbones.whole(1)))
    guidance: float | None = field(default=None, validator=backbones.optional(backbones.number(0)))
    pipeline: Any = field(default=None, init=False, repr=False)
    trainable: Any = field(default=None, init=False, repr=False)
    autoencoder: Any = field(default=None, init=False, repr=False)

    def load(self, placement: Placement) -> None:
        """Read the weights; see `d4k.Backbone.load`."""
        self.attach(backbones.load_pipeline(StableDiffusion3Pipeline, self.source, placement), placement.memory_gb)

    def attach(self, pipeline: StableDiffusion3Pipeline, memory_gb: float | None = None) -> None:
        """Use a pipeline that is already in memory; `memory_gb` bounds what its autoencoder uses."""
        backbones.freeze(pipeline)
        self.pipeline, self.trainable = pipeline, pipeline.transformer
        downscale = self.downscale or own_downscale(pipeline.vae)
        self.autoencoder = backbones.ExactAutoencoder(pipeline.vae, downscale, memory_gb)
        self.text_tokens = backbones.text_length(self.text_tokens, pipeline.tokenizer_3, TEXT_TOKENS)
        trained = self._trained_patches  # refuses a trained_size that is too small
        vars(pipeline.transformer.pos_embed).pop("cropped_pos_embed", None)  # of a backbone that held it before
        if self.positions == "interpolate":
            stretch_positions(pipeline.transformer.pos_embed, trained)
        attach_temperature(pipeline.transformer, self.temperature, trained)

    @property
    def latent(self) -> LatentSpec:
        """The latent space of the loaded model."""
        config, downscale = self.pipeline.transformer.config, self.autoencoder.downscale
        if self.positions == "interpolate":
            return LatentSpec(config.in_channels, downscale, config.patch_size, downscales=DOWNSCALES)
        covered = config.pos_embed_max_size * config.patch_size * downscale
        return LatentSpec(config.in_channels, downscale, config.patch_size, covered, DOWNSCALES, BEYOND)

    @property
    def defaults(self) -> SamplingDefaults:
        """Size to sample at, and the steps and guidance that the checkpoint asks for."""
        return SamplingDefaults(self._trained_patches * self.latent.granularity, self.steps, self.guidance)

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
        return backbones.trained_patches(self.trained_size, self.latent, self.pipeline.transformer.config.sample_size)

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
        """Predict the velocity; guided when `guidance` is above 1 and the conditioning holds a negative prompt."""
        given = conditioning.tensors
        if guidance is None or guidance <= 1 or "negative_states" not in given:
            return self._predict(noisy, sigma, given["states"], given["pooled"])
        both = self._predict(
            torch.cat([noisy, noisy]),
            torch.cat([sigma, sigma]),
            torch.cat([given["negative_states"], given["states"]]),
            torch.cat([given["negative_pooled"], given["pooled"]]),
        )
        negative, positive = both.chunk(2)
        return negative + guidance * (positive - negative)

    def _predict(self, noisy: Tensor, sigma: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        output: Tensor = self.trainable(
            hidden_states=noisy,
            timestep=sigma * 1000,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return output

    def scheduler(self, steps: int, height: int, width: int, shift: float | None = None) -> Any:
        """A fresh scheduler with its timesteps set, shifted by the number of tokens where its checkpoint says so."""
        tokens = self.latent.tokens(height, width)
        return backbones.flow_scheduler(self.pipeline.scheduler, steps, tokens, shift=shift, max_shift=1.16)

    def save(self, folder: Path) -> None:
        """Write the model in the diffusers layout."""
        backbones.save_pipeline(self.pipeline, folder)
