"""One autoencoder for both models: crops at several zooms, then its decoder alone on whole pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from photographs import SIZE, Progress, one_cycle, picture, pixels, squares
from torch import Tensor

from d4k_tiny.photos import PHOTOS

ZOOMS = (
    256,
    256,
    256,
    256,
    256,
    512,
    512,
    1024,
)  # short side in pixels of what crops are cut from, each as likely as the next
WHOLE = {256: 0.7, 384: 0.15, 512: 0.15}  # pixels a side of what the decoder is trained on alone, and how often
CROP = 128
RATES = (1e-3, 5e-4)  # of the cycles of the decoder


def psnr(output: Tensor, wanted: Tensor) -> Tensor:
    """(B,) in dB, of pixels in [-1, 1]."""
    return 10 * torch.log10(4 / (output.clamp(-1, 1) - wanted).square().mean((1, 2, 3)))


class Crops:
    """Random crops of the photographs at random zooms, half of them mirrored."""

    def __init__(self, seed: int) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        self.levels = {side: [pixels(picture(photo.file_name, side)) for photo in PHOTOS] for side in set(ZOOMS)}

    def __call__(self, count: int) -> Tensor:
        """(count, 3, CROP, CROP)."""
        return torch.stack([self._one() for _ in range(count)])

    def _one(self) -> Tensor:
        zoom, which, top, left, flip = torch.rand(5, generator=self.draw).tolist()
        image = self.levels[ZOOMS[int(zoom * len(ZOOMS))]][int(which * len(PHOTOS))]
        y, x = int(top * (image.shape[1] - CROP + 1)), int(left * (image.shape[2] - CROP + 1))
        piece = image[:, y : y + CROP, x : x + CROP]
        return piece.flip(-1) if flip < 0.5 else piece


def train_vae(work: Path, steps: int) -> None:
    """The autoencoder, four crops a step."""
    torch.manual_seed(2)
    crops = Crops(seed=3)
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
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1.5e-3, weight_decay=1e-3)
    schedule, progress = one_cycle(optimizer, steps), Progress("vae", steps)
    for step in range(1, steps + 1):
        batch = crops(4)
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
    keep_figures(vae, work, "vae", progress.curve)


def train_decoder(work: Path, cycles: Sequence[int]) -> None:
    """The decoder alone, on the very latents that the transformers learn; each cycle from what the one before wrote.

    Whole pictures, since group normalisation sees other statistics in a crop than in the picture it was cut from.
    """
    curve: list[tuple[int, float]] = []
    for cycle, steps in enumerate(cycles):
        before, seed = "vae-decoder" if cycle else "vae", 8 + 100 * cycle
        done = decoder_cycle(work, before, steps, RATES[cycle], seed)
        curve += [(sum(cycles[:cycle]) + step, loss) for step, loss in done]
    keep_figures(AutoencoderKL.from_pretrained(work / "vae-decoder"), work, "decoder", curve)


def decoder_cycle(work: Path, before: str, steps: int, rate: float, seed: int) -> list[tuple[int, float]]:
    """One cycle, with a rate that falls to zero; returns the loss curve."""
    draw = torch.Generator().manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(work / before).requires_grad_(False)
    vae.decoder.requires_grad_(True)
    pictures = [image[None] for size in WHOLE for image in squares(size)]
    with torch.no_grad():
        codes = [vae.encode(image).latent_dist.mean for image in pictures]
    chance = torch.tensor([share for share in WHOLE.values() for _ in PHOTOS])
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=rate, weight_decay=0)
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
    return progress.curve


def keep_figures(vae: AutoencoderKL, work: Path, name: str, curve: Sequence[tuple[int, float]]) -> None:
    """Measure the reconstruction of every photograph at one and two times `SIZE`, and keep it with the curve."""
    figures = {}
    for size in (SIZE, 2 * SIZE):
        with torch.inference_mode():
            whole = squares(size)
            values = torch.cat([psnr(vae.decode(vae.encode(x[None]).latent_dist.mean).sample, x[None]) for x in whole])
        figures[size] = {photo.id: round(value, 2) for photo, value in zip(PHOTOS, values.tolist(), strict=True)}
        print(f"{name} at {size}: {values.mean().item():.2f} dB", figures[size], flush=True)
    (work / f"{name}-curve.json").write_text(json.dumps({"psnr_db": figures, "curve": curve}))
