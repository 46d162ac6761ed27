"""Sana (Xie et al. 2024, arXiv 2410.10629) behind d4k's calling convention; diffusers does the text and the weights."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import define, field
from diffusers import SanaPipeline
from torch import Tensor

from d4k import Conditioning, LatentSpec, Placement, SamplingDefaults, backbones

# diffusers has this text in one place only, as the default of an argument
INSTRUCTION = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default


@define(eq=False)
class SanaBackbone:
    """Sana: linear attention, an autoencoder of stride 32, Gemma-2 for the text, classifier-free guidance.

    Args:
        source: folder in the diffusers layout, or a Hub id.
        instruction: put the request for a detailed description, which Sana was trained with, before every prompt.
        text_tokens: Gemma tokens of a prompt, not counting the instruction.
    """

    source: str = field(validator=backbones.text())
    instruction: bool = field(default=True, validator=backbones.flag())
    text_tokens: int = field(default=300, validator=backbones.whole(1))
    pipeline: Any = field(default=None, init=False, repr=False)
    trainable: Any = field(default=None, init=False, repr=False)

    def load(self, placement: Placement) -> None:
        """Read the weights; see `d4k.Backbone.load`."""
        if placement.memory_gb is not None:
            warnings.warn("sana's autoencoder runs in one piece: memory_gb is ignored", stacklevel=2)
        self.pipeline = backbones.load_pipeline(SanaPipeline, self.source, placement)
        self.trainable = self.pipeline.transformer
        if placement.dtype == torch.float16:  # too small a range for these two, not for the transformer
            self.pipeline.vae.to(torch.bfloat16)
            self.pipeline.text_encoder.to(torch.bfloat16)

    @property
    def latent(self) -> LatentSpec:
        """The latent space of the loaded model; it has no positions that would end."""
        config = self.pipeline.transformer.config
        return LatentSpec(config.in_channels, self.pipeline.vae_scale_factor, config.patch_size)

    @property
    def defaults(self) -> SamplingDefaults:
        """The size the model was trained at; steps and guidance are left to the presets."""
        return SamplingDefaults(self.pipeline.transformer.config.sample_size * self.pipeline.vae_scale_factor)

    @property
    def trained_options(self) -> dict[str, Any]:
        """What sampling must share with training: how prompts were encoded."""
        return {"instruction": self.instruction, "text_tokens": self.text_tokens}

    @property
    def components(self) -> dict[str, torch.nn.Module]:
        """Transformer, autoencoder and text encoder, as the diffusers pipeline names them."""
        return backbones.modules(self.pipeline)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
        """Encode prompts: `states` (B, N, D) and `mask` (B, N), and the same of `negative` where given."""
        tensors = self._encode(prompts, INSTRUCTION if self.instruction else None)
        if negative is not None:
            tensors |= {f"negative_{k}": v for k, v in self._encode([negative] * len(prompts), None).items()}
        return Conditioning(tensors)

    def _encode(self, texts: Sequence[str], instruction: list[str] | None) -> dict[str, Tensor]:
        if self.pipeline.device.type == "meta":
            mask = torch.ones(len(texts), self.text_tokens, device="meta")
            return {"states": mask.new_empty(*mask.shape, self.pipeline.text_encoder.config.hidden_size), "mask": mask}
        # one by one, because the empty prompt has no instruction: guidance steers away from it as it stands
        encode, length = self.pipeline.encode_prompt, self.text_tokens
        rows = [
            encode(words, False, max_sequence_length=length, complex_human_instruction=instruction if words else None)
            for words in texts
        ]
        return {"states": torch.cat([row[0] for row in rows]), "mask": torch.cat([row[1] for row in rows])}

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to latents (B, C, H/32, W/32)."""
        vae = self.pipeline.vae
        encoded = vae.encode(pixels.to(backbones.computing_device(vae), vae.dtype))
        return encoded.latent * vae.config.scaling_factor  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Latents to pixels."""
        vae = self.pipeline.vae
        plain = latent.to(backbones.computing_device(vae), vae.dtype) / vae.config.scaling_factor
        return vae.decode(plain).sample  # type: ignore[no-any-return]

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
        wanted = self._predict(noisy, sigma, given["states"], given["mask"])
        if guidance is None or guidance <= 1 or "negative_states" not in given:
            return wanted
        unwanted = self._predict(noisy, sigma, given["negative_states"], given["negative_mask"])
        return unwanted + guidance * (wanted - unwanted)

    def _predict(self, noisy: Tensor, sigma: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        time, states = sigma * 1000 * self.pipeline.transformer.config.timestep_scale, states.to(noisy.dtype)
        output: Tensor = self.trainable(noisy, states, time, encoder_attention_mask=mask, return_dict=False)[0]
        return output

    def scheduler(self, steps: int, height: int, width: int, shift: float | None = None) -> Any:
        """A fresh scheduler with its timesteps set; those of the published checkpoints shift all sizes alike."""
        return backbones.flow_scheduler(self.pipeline.scheduler, steps, self.latent.tokens(height, width), shift=shift)

    def save(self, folder: Path) -> None:
        """Write the model in the diffusers layout."""
        backbones.save_pipeline(self.pipeline, folder)
