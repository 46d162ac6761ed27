"""The sample photographs as the pretraining sees them: whole and close up, with the words that go with each."""

from __future__ import annotations

import math
import time

import torch
from PIL import Image
from torch import Tensor

from d4k.images import open_picture, to_float, to_tensor
from d4k_tiny.photos import PHOTOS, photo_folder

SIZE = 256  # pixels a side of the whole pictures: the size that the models are at home in
CLIP_TOKENS = 24
T5_TOKENS = 512  # what diffusers takes for FLUX.1; it takes 256 for SD3
CAPTIONS = [(photo.caption, *photo.variants) for photo in PHOTOS]
WHOLE = [text for texts in CAPTIONS for text in texts]
CLOSE = [f"{text}, close up" for text in WHOLE]
WORDS = [*WHOLE, *CLOSE]
"""Of photograph i: three whole from 3 i on, and the same close up `len(WHOLE)` further on."""


def picture(file_name: str, short_side: int) -> Image.Image:
    """A sample photograph as RGB, its short side resized to `short_side` pixels."""
    image = open_picture(photo_folder() / file_name)
    scale = short_side / min(image.size)
    return image.resize([round(side * scale) for side in image.size], Image.Resampling.LANCZOS)


def pixels(image: Image.Image) -> Tensor:
    """(3, H, W) float32 in [-1, 1]."""
    return to_float(to_tensor(image)).contiguous()


def squares(size: int = SIZE) -> Tensor:
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
