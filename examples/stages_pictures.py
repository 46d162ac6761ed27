"""The pictures that `stages.py` compares: made once, each a file with its figures beside it."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from attrs import frozen
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from d4k import ConfigError, Pipeline, create
from d4k.files import read_json, write_json
from d4k.images import Crop, Lanczos, open_picture, save_picture, to_float, to_picture, to_tensor, to_uint8
from d4k.sampling import choose_settings, decoded, sample, steps_of
from d4k.seeds import numbered_seed
from d4k_tiny.photos import PHOTOS

LANCZOS, DIRECT, STAGES, GUIDED, POSSIBLE = "Lanczos", "direct", "stages", "stages with guidance", "autoencoder"
METHODS = (LANCZOS, DIRECT, STAGES, GUIDED)
OCTAVES = ((1 / 2, 1.0), (1 / 4, 1 / 2), (1 / 8, 1 / 4))
"""Bands of spatial frequency as shares of the Nyquist frequency, fine to coarse."""


@frozen
class Plan:
    """What the pictures of one model depend on; those of two plans are never mixed.

    Args:
        model: registered name.
        positions: option of the backbone, the same for all methods.
        small: pixels a side of the first stage; None is the model's own size.
        steps: of a whole schedule, of which a later stage takes the last part; None is the model's own number.
        guidance: likewise.
        restart: noise level that a later stage begins at.
        alignment: strength of the low-frequency guidance of `stages with guidance`.
        cutoff: share of the Nyquist frequency that counts as low there.
    """

    model: str = "tiny-sd3"
    positions: str = "interpolate"
    small: int | None = None
    steps: int | None = None
    guidance: float | None = None
    restart: float = 0.7
    alignment: float = 1.0
    cutoff: float = 0.25


@frozen
class Work:
    """One picture to be made and measured; `seed` is -1 for a photograph that went through the autoencoder."""

    method: str
    size: int
    photo: int
    seed: int


@frozen(slots=False)
class Study:
    """The pictures of one plan, one file each, in a folder."""

    folder: Path
    plan: Plan

    @cached_property
    def pipe(self) -> Pipeline:
        """The model, loaded when it is first needed."""
        return Pipeline.from_pretrained(self.plan.model, positions=self.plan.positions)

    @cached_property
    def small(self) -> int:
        """Pixels a side of the first stage."""
        return self.plan.small or self.pipe.backbone.defaults.size

    def path(self, work: Work) -> Path:
        """The file of one picture."""
        name = f"{work.photo:02d}-{PHOTOS[work.photo].id}" + (f"-seed{work.seed}" if work.seed >= 0 else "")
        return self.folder / f"{work.method.replace(' ', '-')}-{work.size}" / f"{name}.png"

    def picture(self, work: Work) -> Tensor:
        """(3, H, W) uint8: from its file, or made and kept."""
        path = self.path(work)
        if path.is_file():
            return to_tensor(open_picture(path))
        if work.method == POSSIBLE:
            backbone, pixels = self.pipe.backbone, to_float(photograph(work.photo, work.size))[None]
            with torch.no_grad():
                picture = decoded(backbone, backbone.encode_image(pixels)[0])
        elif work.method == LANCZOS:
            small = to_float(self.picture(self.smaller(work)))[None]
            picture = to_uint8(Lanczos()(small, work.size, work.size))[0]
        else:
            picture = self.sampled(work)
        save_picture(to_picture(picture), path)
        return picture

    def smaller(self, work: Work) -> Work:
        """What a picture is made from: the stage before, or the small picture, which all methods share."""
        half = work.size // 2
        first = work.method == LANCZOS or half <= self.small
        return attrs.evolve(work, method=DIRECT, size=self.small) if first else attrs.evolve(work, size=half)

    def sampled(self, work: Work) -> Tensor:
        """Sample from noise, or go on from the picture of the stage before."""
        before = None if work.method == DIRECT else [self.picture(self.smaller(work))]
        prompt, seed = PHOTOS[work.photo].caption, numbered_seed(work.seed, "stages", work.photo)
        return next(sample(self.pipe.backbone, [prompt], [seed], self.settings(work), pictures=before))

    def settings(self, work: Work) -> Any:
        """Of the last stage alone, since the others are pictures of their own."""
        plan, later = self.plan, work.method in (STAGES, GUIDED)
        given = {"width": work.size, "height": work.size, "steps": plan.steps, "guidance": plan.guidance}
        if later:
            given["restart"] = plan.restart
        if work.method == GUIDED:
            given |= {"alignment": plan.alignment, "cutoff": plan.cutoff}
        return choose_settings(self.pipe.backbone, self.pipe.loaded.model, given, image=later)

    def cost(self, work: Work) -> float:
        """About how long one picture takes, in a unit of no meaning; what is shared is not counted."""
        calls = 1
        if work.method in (DIRECT, STAGES, GUIDED):
            calls = sum(steps_of(self.pipe.backbone, self.settings(work), picture=work.method != DIRECT))
        return float(calls * work.size**2.5)

    def figures(self, work: Work) -> Path:
        """The file of the figures of one picture."""
        return self.path(work).with_suffix(".json")

    def claim(self) -> None:
        """Mark the folder as that of this plan and of these weights.

        Raises:
            ConfigError: it holds the pictures of another plan, or of other weights.
        """
        kept = self.folder / "plan.json"
        wanted = attrs.asdict(self.plan) | {"small": self.small, "weights": weights(Path(self.pipe.backbone.source))}
        if kept.is_file() and read_json(kept, ConfigError) != wanted:
            raise ConfigError(f"{self.folder} holds pictures of other settings or weights; name another folder")
        write_json(kept, wanted)


def weights(folder: Path) -> str:
    """A digest of all weights in the folder of a model."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def photograph(photo: int, size: int) -> Tensor:
    """(3, size, size) uint8: the short side resized with Lanczos, the middle cut out, as in training."""
    return to_tensor(Crop(size, size)(open_picture(create("dataset", "sample-photos")[photo].source), 0))


def own_side(photo: int) -> int:
    """Pixels on the short side of a photograph as it was taken."""
    return min(open_picture(create("dataset", "sample-photos")[photo].source).size)


def measured(picture: Tensor, reference: Tensor) -> dict[str, Any]:
    """The figures of one picture, both (3, H, W) uint8.

    SSIM is that of Wang et al. 2004: Gaussian windows of sigma 1.5, mean of the three channels.
    """
    one, other = (pixels.permute(1, 2, 0).numpy() for pixels in (reference, picture))
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    energy = octave_energy(picture) - octave_energy(reference)
    return {
        "PSNR": float(peak_signal_noise_ratio(one, other, data_range=255)),
        "SSIM": float(structural_similarity(one, other, channel_axis=2, data_range=255, **window)),
        "octaves": energy.tolist(),
    }


def octave_energy(picture: Tensor) -> np.ndarray:
    """Power of the luminance in each band of `OCTAVES`, in dB: under a Hann window, without what is beyond Nyquist."""
    grey = np.asarray(to_picture(picture).convert("L"), np.float64)
    rows, columns = (np.hanning(side) for side in grey.shape)
    power = np.abs(np.fft.rfft2((grey - grey.mean()) * rows[:, None] * columns)) ** 2
    frequency = 1 * np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.rfftfreq(grey.shape[1]))
    bands = [power[(low <= frequency) & (frequency < high)].sum() for low, high in OCTAVES]
    return 10 * np.log10(np.maximum(bands, 1e-12))
