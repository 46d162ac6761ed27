"""The checkpoints as they are published: half precision, model card, loss curve, and d4k's own options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from denoisers import DEFAULT_TOKENS, SHIFT, VIEWS
from diffusers import AutoencoderKL
from matplotlib.figure import Figure
from photographs import SIZE

from d4k_tiny.photos import PHOTOS

CARD = """---
license: apache-2.0
library_name: diffusers
---
# {name}

A {kind} with five million parameters in the diffusers layout, for trying out d4k without a download.
It generates the twelve photographs it was trained on, whole and close up, and nothing else.

- **Data and licence of the data**: {data}.
- **Licence of the weights**: Apache-2.0.
- **Training**: `scripts/pretrain.py` of d4k-tiny, each stage with seeds of its own, float32, two CPU cores. Autoencoder
  {vae_steps} steps of four 128-pixel crops (and {decoder_steps} of its decoder alone, on whole pictures); transformer
  {steps} steps, AdamW, cosine rate from 1e-3, logit-normal noise levels with shift {shift:g} for whole pictures and
  none for parts. Text encoders are random and frozen; the tokenizers know the words of the captions. In the last steps
  texts are as long as diffusers pads them ({tokens} T5 tokens), in those before short.
- **What it was shown**, of the photographs cut square: {views}.
  Parts lie where they are in the whole picture, with interpolated positions; half of them have ", close up" after their
  caption.
- **Reconstruction**: {psnr:.2f} dB PSNR on average at {size} pixels ({psnr_each}), {psnr_twice:.2f} dB at {twice}.
- **Loss**: {first:.3f} at the start, {last:.3f} at the end (`loss-curve.png`).
- **Limits**: {size} pixels; larger pictures hold together best when they are begun from a small one (`--stages`).
  Prompts other than the captions land on the photograph whose words they share, or on a mixture.
"""
OPTIONS = {
    "sd3": {"guidance": 1.5, "steps": 28, "trained_size": SIZE, "positions": "interpolate"},
    "flux": {"guidance": 3.5, "steps": 28, "trained_size": SIZE, "positions": "interpolate"},
}
KINDS = {"sd3": "Stable Diffusion 3 (MMDiT)", "flux": "FLUX.1"}


def publish(work: Path, output: Path) -> None:
    """Write both checkpoints into `output`, in place of what is there."""
    curves = {name: json.loads((work / f"{name}-curve.json").read_text()) for name in ("vae", "decoder", "sd3", "flux")}
    for name in KINDS:
        folder = output / f"tiny-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(work / f"tiny-{name}", folder)
        AutoencoderKL.from_pretrained(work / "vae-decoder").to(torch.float16).save_pretrained(folder / "vae")
        for config in folder.rglob("*.json"):
            lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
            config.write_text("".join(line for line in lines if '"_name_or_path"' not in line), encoding="utf-8")
        (folder / "README.md").write_text(card(name, curves), encoding="utf-8")
        (folder / "d4k.json").write_text(
            json.dumps({"format": 1, "backbone": name, "options": OPTIONS[name]}, indent=2) + "\n"
        )
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(*zip(*curves[name]["curve"], strict=True))
        axes.set(xlabel="step", ylabel="flow-matching loss", ylim=(0, None), title=f"tiny-{name}")
        figure.savefig(folder / "loss-curve.png", dpi=90)


def card(name: str, curves: dict) -> str:
    """The model card, with the figures of this run."""
    near, far = (curves["decoder"]["psnr_db"][str(size)] for size in (SIZE, 2 * SIZE))
    curve = curves[name]["curve"]
    views = "; ".join(
        f"{view.chance:.0%} {'whole' if view.whole else f'parts of {16 * view.patches} pixels'} at {view.side} pixels, "
        f"{view.count} a step"
        for view in VIEWS
    )
    return CARD.format(
        name=f"tiny-{name}",
        kind=KINDS[name],
        data="; ".join(f"`{photo.file_name}` ({photo.licence})" for photo in PHOTOS),
        vae_steps=curves["vae"]["curve"][-1][0],
        decoder_steps=curves["decoder"]["curve"][-1][0],
        steps=curve[-1][0],
        tokens=DEFAULT_TOKENS[name],
        views=views,
        size=SIZE,
        twice=2 * SIZE,
        shift=SHIFT,
        psnr=sum(near.values()) / len(near),
        psnr_twice=sum(far.values()) / len(far),
        psnr_each=", ".join(f"{key} {value:.1f}" for key, value in near.items()),
        first=curve[0][1],
        last=curve[-1][1],
    )
