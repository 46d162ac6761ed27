"""The two transformers: what they are made of, what they are shown, and flow matching on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from attrs import frozen
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from photographs import CLIP_TOKENS, SIZE, T5_TOKENS, WHOLE, WORDS, Progress, one_cycle, squares
from torch import Tensor
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)

from d4k_flux.backbone import pack, unpack
from d4k_flux.positions import token_positions
from d4k_sd3.positions import stretch_positions
from d4k_tiny.photos import PHOTOS

SHIFT = 2.0  # of the sigma schedule, in training and in sampling
PATCHES = SIZE // 16
DEFAULT_TOKENS = {"sd3": 256, "flux": T5_TOKENS}  # of the T5 text, where a pipeline of diffusers is told nothing
LEARNING_RATE = 1e-3


@frozen
class View:
    """One way of looking at the photographs.

    Args:
        side: pixels a side of the whole picture.
        patches: a side of the part that is looked at.
        count: photographs in a step; the tokens of a step are about the same in all views.
        chance: how often, among all.
    """

    side: int
    patches: int
    count: int
    chance: float

    @property
    def whole(self) -> bool:
        """Whether all of the picture is looked at."""
        return self.side == 16 * self.patches


VIEWS = (
    View(256, 16, 8, 0.58),
    View(192, 12, 12, 0.03),
    View(384, 16, 8, 0.07),
    View(512, 16, 8, 0.15),
    View(1024, 16, 8, 0.09),
    View(512, 32, 2, 0.08),
)
"""Whole at home, and smaller; close up at 1.5, 2 and 4 times the zoom; whole at twice the size."""


def sd3_pipeline(work: Path) -> StableDiffusion3Pipeline:
    """The untrained `tiny-sd3`: a four-layer MMDiT over the trained autoencoder."""
    torch.manual_seed(4)
    transformer = SD3Transformer2DModel(
        sample_size=128,  # as in SD3-medium: it sets the step of the position table, half a radian a patch
        patch_size=2,
        in_channels=16,
        num_layers=4,
        num_attention_heads=6,
        attention_head_dim=32,
        joint_attention_dim=128,
        caption_projection_dim=192,
        pooled_projection_dim=128,
        pos_embed_max_size=128,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModelWithProjection.from_pretrained(work / "clip_1"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(work / "clip_2"),
        tokenizer_2=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        text_encoder_3=T5EncoderModel.from_pretrained(work / "t5"),
        tokenizer_3=T5TokenizerFast.from_pretrained(work / "t5_tokenizer"),
    )


def flux_pipeline(work: Path) -> FluxPipeline:
    """The untrained `tiny-flux`: two double and four single blocks with an embedded guidance."""
    torch.manual_seed(5)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=4,
        num_attention_heads=6,
        attention_head_dim=32,
        joint_attention_dim=128,
        pooled_projection_dim=64,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(work / "clip_flux"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        text_encoder_2=T5EncoderModel.from_pretrained(work / "t5"),
        tokenizer_2=T5TokenizerFast.from_pretrained(work / "t5_tokenizer"),
    )


PIPELINES = {"sd3": sd3_pipeline, "flux": flux_pipeline}


def encode_whole(vae: AutoencoderKL, side: int) -> Tensor:
    """(photographs, C, side / 8, side / 8): every photograph at `side` pixels, scaled as the transformers take it."""
    with torch.no_grad():
        latents = torch.cat([vae.encode(image[None]).latent_dist.mean for image in squares(side)])
    return (latents - vae.config.shift_factor) * vae.config.scaling_factor


def encode_words(pipe: Any, name: str, tokens: int) -> tuple[Tensor, Tensor]:
    """States (words + 1, N, D) and pooled (words + 1, P) of all words, and of the empty prompt last."""
    texts = [*WORDS, ""]
    with torch.no_grad():
        if name == "sd3":
            states, _, pooled, _ = pipe.encode_prompt(
                texts, None, None, do_classifier_free_guidance=False, max_sequence_length=tokens
            )
        else:
            states, pooled, _ = pipe.encode_prompt(texts, None, max_sequence_length=tokens)
    return states, pooled


def choose_words(which: Tensor, view: View, draw: torch.Generator) -> Tensor:
    """(B,) rows of `encode_words` for photographs (B,): caption, two variants, or nothing; half of the parts say so."""
    wording = torch.multinomial(torch.tensor([0.6, 0.15, 0.15, 0.1]), len(which), replacement=True, generator=draw)
    close = (torch.rand(len(which), generator=draw) < 0.5) & (not view.whole)
    rows = 3 * which + wording + len(WHOLE) * close
    return torch.where(wording == 3, len(WORDS), rows)


class Positions:
    """Positions of a part of a picture, interpolated as d4k does it for the whole."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name
        if name == "sd3":
            stretch_positions(model.pos_embed, PATCHES)
            self.embed = model.pos_embed.cropped_pos_embed

    def __call__(self, view: View, top: int, left: int) -> Tensor:
        """Of the tokens of the part: rows of SD3's table (1, N, D), or FLUX.1's places (N, 3)."""
        side = view.side // 16
        if self.name == "sd3":
            places = self.embed(2 * side, 2 * side)[0]
        else:
            places = token_positions(side, side, min(1.0, PATCHES / side))
        part = places.unflatten(0, (side, side))[top : top + view.patches, left : left + view.patches].flatten(0, 1)
        return part[None] if self.name == "sd3" else part

    def velocity(
        self, noisy: Tensor, sigma: Tensor, places: Tensor, states: Tensor, pooled: Tensor, scale: Tensor
    ) -> Tensor:
        """What the transformer predicts for latents (B, C, h, w) that lie at `places`."""
        if self.name == "sd3":
            self.model.pos_embed.cropped_pos_embed = lambda height, width: places  # noqa: ARG005
            return self.model(noisy, states, pooled, sigma * 1000, return_dict=False)[0]
        tokens = self.model(
            pack(noisy),
            timestep=sigma,
            guidance=scale,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            txt_ids=places.new_zeros(states.shape[1], 3),
            img_ids=places,
            return_dict=False,
        )[0]
        return unpack(tokens, *noisy.shape[-2:])


def train_transformer(work: Path, name: str, cycles: Sequence[int]) -> None:
    """Flow matching on the latents of the photographs, with short texts and texts as diffusers pads them by turns.

    Short texts are fast. Each cycle has a rate that falls to zero, and starts from what the one before has written.
    """
    (work / f"{name}-curve.json").unlink(missing_ok=True)
    for cycle in range(len(cycles)):
        next_cycle(work, name, cycles, cycle)


def next_cycle(work: Path, name: str, cycles: Sequence[int], cycle: int) -> None:
    """One cycle, and the curve of all that were done."""
    folder, kept = work / f"tiny-{name}", work / f"{name}-curve.json"
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32) if cycle else PIPELINES[name](work)
    curve = json.loads(kept.read_text())["curve"] if cycle else []
    latents = {side: encode_whole(pipe.vae, side) for side in {view.side for view in VIEWS}}
    words = encode_words(pipe, name, DEFAULT_TOKENS[name] if cycle % 2 else CLIP_TOKENS)
    done = train_cycle(Positions(pipe.transformer, name), latents, words, cycles[cycle], seed=6 + 100 * cycle)
    pipe.to(torch.float16).save_pretrained(folder)
    curve += [(sum(cycles[:cycle]) + step, loss) for step, loss in done]
    kept.write_text(json.dumps({"curve": curve}))


def train_cycle(
    positions: Positions, latents: dict[int, Tensor], words: tuple[Tensor, Tensor], steps: int, seed: int
) -> list[tuple[int, float]]:
    """Train a transformer in place; returns the loss curve, over all views."""
    draw, model = torch.Generator().manual_seed(seed), positions.model
    states, pooled = words
    chances = torch.tensor([view.chance for view in VIEWS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    schedule, progress = one_cycle(optimizer, steps), Progress(positions.name, steps)
    model.train()
    for step in range(1, steps + 1):
        view = VIEWS[int(torch.multinomial(chances, 1, generator=draw))]
        which = torch.randperm(len(PHOTOS), generator=draw)[: view.count]
        top, left = torch.randint(view.side // 16 - view.patches + 1, (2,), generator=draw).tolist()
        area = [slice(2 * start, 2 * (start + view.patches)) for start in (top, left)]
        clean = latents[view.side][which][:, :, area[0], area[1]]
        sigma = torch.sigmoid(torch.randn(view.count, generator=draw))
        if view.side <= SIZE:  # elsewhere pictures are begun from a smaller one, at the middle of the schedule
            sigma = SHIFT * sigma / (1 + (SHIFT - 1) * sigma)
        text = choose_words(which, view, draw)
        noise = torch.randn(clean.shape, generator=draw)
        scale = 1 + 5 * torch.rand(view.count, generator=draw)
        s = sigma[:, None, None, None]
        predicted = positions.velocity(
            (1 - s) * clean + s * noise, sigma, positions(view, top, left), states[text], pooled[text], scale
        )
        loss = F.mse_loss(predicted, noise - clean)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        progress(step, loss.item())
    model.eval()
    return progress.curve
