"""Pretrain the two tiny checkpoints on the sample photographs, from nothing, with fixed seeds.

    python pretrain.py --work /tmp/pretrain --output ../src/d4k_tiny/checkpoints

Stages, each of which can be run alone: `text` (tokenizers and frozen random text encoders), `vae` (one autoencoder for
both), `sd3` and `flux` (the transformers on 256-pixel latents), `decoder` (the decoder once more, the latents as they
are), `publish` (checkpoints with their model cards). About ninety minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from matplotlib.figure import Figure
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from d4k_tiny.photos import PHOTOS, photo_folder

SIZE = 256  # pixels a side of the pretraining pictures
TEXT_TOKENS = 24
SHIFT = 2.0  # of the sigma schedule, in training and in sampling
WORDS = [text for photo in PHOTOS for text in (photo.caption, *photo.variants)]


def picture(file_name: str, short_side: int | None = None) -> Image.Image:
    """A sample photograph as RGB, its short side resized to `short_side` pixels if given."""
    image = Image.open(photo_folder() / file_name).convert("RGB")
    if short_side is None:
        return image
    scale = short_side / min(image.size)
    return image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)


def pixels(image: Image.Image) -> torch.Tensor:
    """(3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.asarray(image, np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()


def squares(size: int = SIZE) -> torch.Tensor:
    """(photographs, 3, size, size): every photograph, short side resized to `size`, centre-cropped."""
    out = []
    for photo in PHOTOS:
        full = pixels(picture(photo.file_name, size))
        top, left = (full.shape[1] - size) // 2, (full.shape[2] - size) // 2
        out.append(full[:, top : top + size, left : left + size])
    return torch.stack(out)


class Progress:
    """Prints loss, speed and time left every hundred steps, and keeps the curve."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.start, self.recent, self.curve = name, steps, time.time(), [], []

    def __call__(self, step: int, loss: float) -> None:
        """Take in the loss of a step."""
        self.recent.append(loss)
        if step % 100 == 0 or step == self.steps:
            mean, self.recent = sum(self.recent) / len(self.recent), []
            rate = step / (time.time() - self.start)
            self.curve.append((step, round(mean, 5)))
            left = (self.steps - step) / rate / 60
            print(f"{self.name} {step}/{self.steps} loss {mean:.5f} {rate:.2f}/s left {left:.1f} min", flush=True)


def one_cycle(optimizer: torch.optim.Optimizer, steps: int, warmup: int = 100) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up, then a cosine to zero."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warmup, 0.5 * (1 + math.cos(math.pi * min(s / steps, 1)))),
    )


def train_text(work: Path) -> None:
    """Tokenizers over the captions' words, and text encoders that stay as they were drawn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=special,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator([w.lower() for w in WORDS], trainer)
    vocab = bpe.get_vocab()
    for letter in alphabet:
        vocab.setdefault(f"{letter}</w>", len(vocab))
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    clip_tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_TOKENS)

    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    letters = sorted({chr(c) for c in range(33, 127)} | {"▁"})
    pieces.train_from_iterator(
        WORDS,
        trainers.UnigramTrainer(
            vocab_size=400,
            special_tokens=["<pad>", "</s>", "<unk>"],
            unk_token="<unk>",
            initial_alphabet=letters,
            show_progress=False,
        ),
    )
    scores = [tuple(piece) for piece in json.loads(pieces.to_str())["model"]["vocab"]]
    t5_tokenizer = T5TokenizerFast(vocab=scores, extra_ids=0, model_max_length=TEXT_TOKENS)

    torch.manual_seed(1)
    clip_config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_TOKENS,
        projection_dim=64,
        bos_token_id=clip_tokenizer.bos_token_id,
        eos_token_id=clip_tokenizer.eos_token_id,
        pad_token_id=clip_tokenizer.pad_token_id,
    )
    t5_config = T5Config(
        vocab_size=len(t5_tokenizer),
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=1,
    )
    for name, part in {
        "tokenizer": clip_tokenizer,
        "t5_tokenizer": t5_tokenizer,
        "clip_1": CLIPTextModelWithProjection(clip_config),
        "clip_2": CLIPTextModelWithProjection(clip_config),
        "clip_flux": CLIPTextModel(clip_config),
        "t5": T5EncoderModel(t5_config),
    }.items():
        part.save_pretrained(work / name)


def train_vae(work: Path, steps: int) -> None:
    """Autoencoder on random 128-pixel crops of the photographs, their short side at 256 or 512 pixels."""
    torch.manual_seed(2)
    draw = torch.Generator().manual_seed(3)
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=SIZE,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    levels = [[pixels(picture(photo.file_name, side)) for photo in PHOTOS] for side in (256, 256, 256, 512)]

    def crop() -> torch.Tensor:
        level, which, top, left, flip = torch.rand(5, generator=draw).tolist()
        image = levels[int(level * len(levels))][int(which * len(PHOTOS))]
        y, x = int(top * (image.shape[1] - 127)), int(left * (image.shape[2] - 127))
        piece = image[:, y : y + 128, x : x + 128]
        return piece.flip(-1) if flip < 0.5 else piece

    optimizer = torch.optim.AdamW(vae.parameters(), lr=1.5e-3, weight_decay=1e-3)
    schedule, progress = one_cycle(optimizer, steps), Progress("vae", steps)
    for step in range(1, steps + 1):
        batch = torch.stack([crop() for _ in range(4)])
        posterior = vae.encode(batch).latent_dist
        output = vae.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        error = F.mse_loss(output, batch)
        (error + 1e-4 * kl).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        progress(step, error.item())
    with torch.inference_mode():
        latents = vae.encode(squares()).latent_dist.mean
    vae.register_to_config(
        shift_factor=round(latents.mean().item(), 5), scaling_factor=round(1 / latents.std().item(), 5)
    )
    vae.save_pretrained(work / "vae")
    finish_vae(vae, work, "vae", progress)


def train_decoder(work: Path, steps: int) -> None:
    """The decoder alone, on the very latents that the transformers learn.

    Whole pictures, since group normalisation sees other statistics in a crop than in the picture it was cut from.
    """
    draw = torch.Generator().manual_seed(8)
    vae = AutoencoderKL.from_pretrained(work / "vae").requires_grad_(False)
    vae.decoder.requires_grad_(True)
    pictures = [image[None] for size in (SIZE, SIZE * 3 // 2) for image in squares(size)]
    with torch.no_grad():
        codes = [vae.encode(picture).latent_dist.mean for picture in pictures]
    chance = torch.tensor([0.75] * len(PHOTOS) + [0.25] * len(PHOTOS))
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=1e-3, weight_decay=0)
    schedule, progress = one_cycle(optimizer, steps), Progress("decoder", steps)
    for step in range(1, steps + 1):
        index = int(torch.multinomial(chance, 1, generator=draw))
        error = F.mse_loss(vae.decode(codes[index]).sample, pictures[index])
        error.backward()
        torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        progress(step, error.item())
    vae.save_pretrained(work / "vae-decoder")
    finish_vae(vae, work, "decoder", progress)


def finish_vae(vae: AutoencoderKL, work: Path, name: str, progress: Progress) -> None:
    """Measure the reconstruction of every photograph at `SIZE` pixels, and keep it with the curve."""
    with torch.inference_mode():
        test = squares()
        output = vae.decode(vae.encode(test).latent_dist.mean).sample.clamp(-1, 1)
    psnr = 10 * torch.log10(4 / ((output - test) ** 2).mean((1, 2, 3)))
    values = {photo.id: round(value, 2) for photo, value in zip(PHOTOS, psnr.tolist(), strict=True)}
    print(values, "mean", psnr.mean().item())
    (work / f"{name}-curve.json").write_text(json.dumps({"psnr_db": values, "curve": progress.curve}))


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


def caption_choices() -> torch.Tensor:
    """(photographs, 4): rows of `WORDS` + the empty prompt, for caption, two variants and nothing."""
    rows = [[3 * i, 3 * i + 1, 3 * i + 2, len(WORDS)] for i in range(len(PHOTOS))]
    return torch.tensor(rows)


def train_transformer(work: Path, name: str, cycles: Sequence[int]) -> None:
    """Flow matching on the latents of the photographs, eight of them a step, at `SIZE` pixels.

    Each cycle has a rate that falls to zero, and starts from what the one before has written.
    """
    curve: list[tuple[int, float]] = []
    for cycle, steps in enumerate(cycles):
        before = sum(cycles[:cycle])
        pipe = (
            PIPELINES[name](work)
            if not cycle
            else DiffusionPipeline.from_pretrained(work / f"tiny-{name}", dtype=torch.float32)
        )
        curve += [(before + step, loss) for step, loss in train_cycle(pipe, name, steps, seed=6 + 100 * cycle)]
        pipe.to(torch.float16).save_pretrained(work / f"tiny-{name}")
        (work / f"{name}-curve.json").write_text(json.dumps({"curve": curve}))


def train_cycle(pipe: DiffusionPipeline, name: str, steps: int, seed: int) -> list[tuple[int, float]]:
    """Train the transformer of a pipeline in place; returns the loss curve."""
    vae, model = pipe.vae, pipe.transformer
    with torch.inference_mode():
        latents = vae.encode(squares()).latent_dist.mean
        latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
        texts = [*WORDS, ""]
        if name == "sd3":
            states, _, pooled, _ = pipe.encode_prompt(
                texts, None, None, do_classifier_free_guidance=False, max_sequence_length=TEXT_TOKENS
            )
        else:
            states, pooled, text_ids = pipe.encode_prompt(texts, None, max_sequence_length=TEXT_TOKENS)
            image_ids = pipe._prepare_latent_image_ids(1, SIZE // 16, SIZE // 16, "cpu", torch.float32)
    latents, states, pooled = latents.clone(), states.clone(), pooled.clone()
    draw = torch.Generator().manual_seed(seed)
    choices, weights = caption_choices(), torch.tensor([0.6, 0.15, 0.15, 0.1])
    count = 8  # of the photographs in a step

    def velocity(noisy: torch.Tensor, sigma: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        if name == "sd3":
            return model(noisy, states[text], pooled[text], sigma * 1000, return_dict=False)[0]
        side = SIZE // 8
        out = model(
            pipe._pack_latents(noisy, count, 16, side, side),
            timestep=sigma,
            guidance=1 + 5 * torch.rand(count, generator=draw),
            encoder_hidden_states=states[text],
            pooled_projections=pooled[text],
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return pipe._unpack_latents(out, SIZE, SIZE, 8)

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule, progress = one_cycle(optimizer, steps), Progress(name, steps)
    for step in range(1, steps + 1):
        t = torch.sigmoid(torch.randn(count, generator=draw))
        sigma = SHIFT * t / (1 + (SHIFT - 1) * t)
        which = torch.randperm(len(PHOTOS), generator=draw)[:count]
        wording = torch.multinomial(weights, count, replacement=True, generator=draw)
        noise = torch.randn(count, *latents.shape[1:], generator=draw)
        s = sigma[:, None, None, None]
        predicted = velocity((1 - s) * latents[which] + s * noise, sigma, choices[which, wording])
        loss = F.mse_loss(predicted, noise - latents[which])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        progress(step, loss.item())
    model.eval()
    return progress.curve


PIPELINES = {"sd3": sd3_pipeline, "flux": flux_pipeline}

CARD = """---
license: apache-2.0
library_name: diffusers
---
# {name}

A {kind} with five million parameters in the diffusers layout, for trying out d4k without a download.
It generates the twelve photographs it was trained on, and nothing else.

- **Data and licence of the data**: {data}.
- **Licence of the weights**: Apache-2.0.
- **Training**: `scripts/pretrain.py` of d4k-tiny, seeded, float32, two CPU cores. Autoencoder {vae_steps} steps of four
  128-pixel crops (and {decoder_steps} of its decoder alone); transformer {steps} steps of eight {size}-pixel latents,
  AdamW, cosine rate from 1e-3, logit-normal noise levels with shift {shift:g}. Text encoders are random and frozen; the
  tokenizers know the words of the captions.
- **Reconstruction at {size} pixels**: {psnr:.2f} dB PSNR on average ({psnr_each}).
- **Loss**: {first:.3f} at the start, {last:.3f} at the end (`loss-curve.png`).
- **Limits**: {size} pixels; asked for more it generates a small picture among stripes, until it is fine-tuned there.
  Prompts other than the captions land on the photograph whose words they share, or on a mixture.
"""
OPTIONS = {
    "sd3": {"guidance": 1.5, "steps": 28, "trained_size": SIZE},
    "flux": {"guidance": 3.5, "steps": 28, "trained_size": SIZE},
}
KINDS = {"sd3": "Stable Diffusion 3 (MMDiT)", "flux": "FLUX.1"}


def publish(work: Path, output: Path) -> None:
    """Checkpoints in half precision with model card, loss curve and d4k's own options."""
    curves = {name: json.loads((work / f"{name}-curve.json").read_text()) for name in ("vae", "decoder", "sd3", "flux")}
    psnr = curves["decoder"]["psnr_db"]
    for name, kind in KINDS.items():
        folder, curve = output / f"tiny-{name}", curves[name]["curve"]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(work / f"tiny-{name}", folder)
        AutoencoderKL.from_pretrained(work / "vae-decoder").to(torch.float16).save_pretrained(folder / "vae")
        for config in folder.rglob("*.json"):
            lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
            config.write_text("".join(line for line in lines if '"_name_or_path"' not in line), encoding="utf-8")
        card = CARD.format(
            name=f"tiny-{name}",
            kind=kind,
            data="; ".join(f"`{photo.file_name}` ({photo.licence})" for photo in PHOTOS),
            vae_steps=curves["vae"]["curve"][-1][0],
            decoder_steps=curves["decoder"]["curve"][-1][0],
            steps=curve[-1][0],
            size=SIZE,
            shift=SHIFT,
            psnr=sum(psnr.values()) / len(psnr),
            psnr_each=", ".join(f"{key} {value:.1f}" for key, value in psnr.items()),
            first=curve[0][1],
            last=curve[-1][1],
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / "d4k.json").write_text(
            json.dumps({"format": 1, "backbone": name, "options": OPTIONS[name]}, indent=2) + "\n"
        )
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(*zip(*curve, strict=True))
        axes.set(xlabel="step", ylabel="flow-matching loss", ylim=(0, None), title=f"tiny-{name}")
        figure.savefig(folder / "loss-curve.png", dpi=90)


def main() -> None:
    """Run the named stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="parts and curves")
    parser.add_argument("--output", type=Path, help="where `publish` puts the checkpoints")
    parser.add_argument("--stages", nargs="+", default=["text", "vae", "sd3", "flux", "decoder", "publish"])
    parser.add_argument("--vae-steps", type=int, default=3600)
    parser.add_argument("--decoder-steps", type=int, default=900)
    parser.add_argument("--sd3-cycles", type=int, nargs="+", default=[2200])
    parser.add_argument("--flux-cycles", type=int, nargs="+", default=[1100, 1500])
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    stages = {
        "text": lambda: train_text(args.work),
        "vae": lambda: train_vae(args.work, args.vae_steps),
        "sd3": lambda: train_transformer(args.work, "sd3", args.sd3_cycles),
        "flux": lambda: train_transformer(args.work, "flux", args.flux_cycles),
        "decoder": lambda: train_decoder(args.work, args.decoder_steps),
        "publish": lambda: publish(args.work, args.output),
    }
    for stage in args.stages:
        stages[stage]()


if __name__ == "__main__":
    main()
