"""Which loss brings fine detail back? Seven of them, from one softened model, at equal compute.

`tiny-sd3` is fine-tuned on blurred photographs until it paints softly. From there each loss trains it on the sharp
ones, with several seeds. Every finished run is a file, so that the same command goes on where it was stopped. A table,
a plot and all numbers are left in the folder.

python examples/ablation.py [FOLDER]
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import numpy as np
import torch
from attrs import frozen
from PIL import Image, ImageFilter
from safetensors.torch import load_file, save_file
from torch import Tensor

from d4k import Backbone, Conditioning, ConfigError, FlowStep, Loss, Pipeline, create
from d4k.files import atomic_file, read_json, write_json, write_text
from d4k.flow import clean_from_velocity, sample_sigma
from d4k.images import Crop, open_picture, to_float, to_tensor, to_uint8
from d4k.seeds import numbered_seed
from d4k_tiny.photos import PHOTOS

Scores: TypeAlias = dict[str, list[float]]
"""By name of the figure, one number a photograph."""

REFERENCE = "mse"
CONTROL = ("published", "sigma^2 mse")
"""Two losses that must train alike, by Parseval's theorem."""
TOLERANCE = 1e-4
OCTAVES = ((1 / 16, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1 / 2))
"""Bands of spatial frequency in cycles a pixel, coarse to fine."""
BANDS = tuple(f"octave {1 / high:.0f}-{1 / low:.0f} px" for low, high in OCTAVES)
FIGURES = ("denoised PSNR", "sampled PSNR", *BANDS, "GLCM", "compression ratio")
"""The first of estimates in one step, the others of sampled pictures; PSNR and octaves in dB to the photographs."""


@frozen
class Plan:
    """What is computed; results of two plans are never mixed."""

    photographs: int = len(PHOTOS)
    size: int = 256
    blur: float = 3.0
    soften_steps: int = 200
    steps: int = 80
    batch: int = 4
    lr: float = 5e-4
    shift: float = 2.0
    seeds: int = 5
    levels: tuple[float, ...] = (0.3, 0.6, 0.8)
    sampling_steps: int = 12


@frozen(eq=False)
class Material:
    """The photographs, their latents sharp and soft, and their captions to train with and held out."""

    pixels: Tensor
    sharp: Tensor
    soft: Tensor
    captions: Conditioning
    held_out: Conditioning


@frozen
class Ablation:
    """Where the results of a plan are kept, one file a run."""

    folder: Path
    plan: Plan

    def run(self, loss: str, seed: int) -> Path:
        """The file of one run."""
        return self.folder / "runs" / f"{loss.replace(' ', '-')}-{seed}.json"

    def scores(self, loss: str) -> dict[str, np.ndarray]:
        """By figure, (seeds, photographs)."""
        read = [read_json(self.run(loss, seed), ConfigError)["scores"] for seed in range(self.plan.seeds)]
        return {figure: np.array([scores[figure] for scores in read]) for figure in read[0]}

    def history(self, loss: str, seed: int) -> list[float]:
        """The loss of every step of a run."""
        history: list[float] = read_json(self.run(loss, seed), ConfigError)["history"]
        return history


class SigmaSquared:
    """Plain mean squared error of the velocity, weighted by sigma^2: what the published form should equal."""

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        """(B,) float32."""
        return step.sigma**2 * (velocity - step.velocity).square().mean((1, 2, 3))


def losses() -> dict[str, Loss]:
    """What is compared, with the defaults of each."""
    with warnings.catch_warnings(action="ignore"):  # the published form says that it is plain mean squared error
        published = create("loss", "wavelet", preset="published")
    return {
        "mse": create("loss", "mse"),
        "sigma^2 mse": SigmaSquared(),
        "published": published,
        "wavelet": create("loss", "wavelet"),
        "wavelet of velocity": create("loss", "wavelet", target="velocity"),
        "wavelet-mask": create("loss", "wavelet-mask"),
        "wavelet-huber": create("loss", "wavelet-huber"),
    }


def prepare(backbone: Backbone, plan: Plan) -> Material:
    """Encode everything once."""
    photos, dataset = PHOTOS[: plan.photographs], create("dataset", "sample-photos")
    crop = Crop(plan.size, plan.size)
    pictures = [crop(open_picture(dataset[i].source), 0) for i in range(len(photos))]
    pixels = torch.stack([to_float(to_tensor(picture)) for picture in pictures])
    blurred = torch.stack([to_float(to_tensor(soften(picture, plan.blur))) for picture in pictures])
    with torch.no_grad():
        sharp, soft = (torch.cat([backbone.encode_image(x[None]) for x in stack]) for stack in (pixels, blurred))
        captions = backbone.encode_text([photo.caption for photo in photos])
        held_out = backbone.encode_text([photo.variants[-1] for photo in photos])
    return Material(pixels, sharp, soft, captions, held_out)


def soften(picture: Image.Image, radius: float) -> Image.Image:
    """A photograph without its fine detail."""
    return picture.filter(ImageFilter.GaussianBlur(radius))


def generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """Chance by number: equal for all losses, so that they differ in nothing else."""
    return torch.Generator().manual_seed(numbered_seed(seed, purpose, number))


def train(
    backbone: Backbone, latents: Tensor, text: Conditioning, loss: Loss, plan: Plan, *, steps: int, seed: int
) -> list[float]:
    """A bare loop; returns the loss of every step."""
    backbone.trainable.requires_grad_(True)
    optimizer = torch.optim.AdamW(backbone.trainable.parameters(), lr=plan.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history = []
    for number in range(steps):
        chance = generator(seed, "training", number)
        rows = torch.randperm(len(latents), generator=chance)[: plan.batch]
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=chance)
        step = FlowStep(clean, noise, sample_sigma(len(rows), shift=plan.shift, generator=chance))
        value = loss(backbone.velocity(step.noisy, step.sigma, text[rows]), step).mean()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        history.append(value.item())
    return history


@torch.no_grad()
def measure(backbone: Backbone, material: Material, plan: Plan, seed: int) -> Scores:
    """The figures of each photograph, with noise and captions that no training saw."""
    noise = torch.randn(material.sharp.shape, generator=generator(seed, "held-out noise"))
    ratios = [psnr(decode(backbone, x), material.pixels) for x in denoised(backbone, material, noise, plan.levels)]
    pictures = decode(backbone, sample(backbone, material, noise, plan))
    return {"denoised PSNR": np.mean(ratios, 0).tolist(), **detail(pictures, material.pixels)}


def denoised(backbone: Backbone, material: Material, noise: Tensor, levels: tuple[float, ...]) -> list[Tensor]:
    """Estimates of the clean latents in one step from each noise level."""
    estimates = []
    for level in levels:
        sigma = torch.full((len(noise),), level)
        noisy = FlowStep(material.sharp, noise, sigma).noisy
        estimates.append(clean_from_velocity(noisy, backbone.velocity(noisy, sigma, material.held_out), sigma))
    return estimates


def sample(backbone: Backbone, material: Material, noise: Tensor, plan: Plan) -> Tensor:
    """Latents by Euler steps from pure noise."""
    latent = noise
    for now, after in pairwise(backbone.scheduler(plan.sampling_steps, plan.size, plan.size).sigmas.tolist()):
        velocity = backbone.velocity(latent, torch.full((len(noise),), now), material.held_out)
        latent = latent + (after - now) * velocity
    return latent


def decode(backbone: Backbone, latents: Tensor) -> Tensor:
    """Pixels as an 8-bit file would hold them, in [-1, 1]."""
    return torch.cat([to_float(to_uint8(backbone.decode(latent[None]))) for latent in latents])


def detail(pictures: Tensor, photographs: Tensor) -> Scores:
    """How near pictures are to their photographs, and how much detail they have."""
    energies = octave_energy(pictures) - octave_energy(photographs)
    octaves = dict(zip(BANDS, energies.T.tolist(), strict=True))
    glcm, ratio = (each(name, pictures) for name in ("glcm", "compression-ratio"))
    return {"sampled PSNR": psnr(pictures, photographs), **octaves, "GLCM": glcm, "compression ratio": ratio}


def psnr(pictures: Tensor, photographs: Tensor) -> list[float]:
    """Peak signal to noise in dB, of each picture."""
    error = (pictures - photographs).square().mean((1, 2, 3))
    return (10 * (4 / error).log10()).tolist()


def octave_energy(pictures: Tensor) -> Tensor:
    """(N, octaves): energy of the grey pictures in each band of `OCTAVES`, in dB."""
    grey = pictures.mean(1)
    rows, columns = (torch.hann_window(side) for side in grey.shape[-2:])
    power = torch.fft.rfft2((grey - grey.mean((1, 2), keepdim=True)) * rows[:, None] * columns).abs().square()
    frequency = torch.hypot(torch.fft.fftfreq(grey.shape[-2])[:, None], torch.fft.rfftfreq(grey.shape[-1]))
    bands = [power[:, (low <= frequency) & (frequency < high)].sum(1) for low, high in OCTAVES]
    return 10 * torch.stack(bands, 1).log10()


def each(metric: str, pictures: Tensor) -> list[float]:
    """A metric of each picture by itself."""
    scores = []
    for picture in to_uint8(pictures):
        measured = create("metric", metric)
        value = measured.score(measured.observe(image=[picture]))
        scores.append(float(next(iter(value.values())) if isinstance(value, Mapping) else value))
    return scores


def soft_model(backbone: Backbone, material: Material, ablation: Ablation) -> dict[str, Tensor]:
    """Weights of the model that every run begins with: made once, and measured beside what is possible at all."""
    path, plan = ablation.folder / "softened.safetensors", ablation.plan
    if not path.is_file():
        train(backbone, material.soft, material.captions, losses()["mse"], plan, steps=plan.soften_steps, seed=-1)
        photographs, possible = material.pixels, decode(backbone, material.sharp)
        rows = {"photographs": photographs, "through the autoencoder": possible}
        start = {name: detail(pictures, photographs) for name, pictures in rows.items()}
        del start["photographs"]["sampled PSNR"]  # no error, so no number
        start["softened model"] = measure(backbone, material, plan, 0)
        write_json(ablation.folder / "start.json", start)
        with atomic_file(path) as temporary:
            save_file(backbone.trainable.state_dict(), temporary)
    weights: dict[str, Tensor] = load_file(path)
    return weights


def run_all(backbone: Backbone, ablation: Ablation) -> None:
    """Every loss with every seed; what is finished is not done again.

    Raises:
        ConfigError: the folder holds the runs of another plan.
    """
    plan, kept = ablation.plan, ablation.folder / "plan.json"
    wanted = attrs.asdict(plan) | {"levels": list(plan.levels)}
    if kept.is_file() and read_json(kept, ConfigError) != wanted:
        raise ConfigError(f"{ablation.folder} holds the runs of another plan; name another folder")
    write_json(kept, wanted)
    material = prepare(backbone, plan)
    start = soft_model(backbone, material, ablation)
    for seed in range(plan.seeds):
        for name, loss in losses().items():
            if not ablation.run(name, seed).is_file():
                backbone.trainable.load_state_dict(start)
                history = train(backbone, material.sharp, material.captions, loss, plan, steps=plan.steps, seed=seed)
                scores = measure(backbone, material, plan, seed)
                write_json(ablation.run(name, seed), {"history": history, "scores": scores})
                print(f"seed {seed}, {name}: {np.mean(scores['sampled PSNR']):.2f} dB", flush=True)


def check_control(ablation: Ablation) -> float:
    """The largest relative difference between the losses of the two runs that must be one.

    Raises:
        AssertionError: they differ by more than rounding grows to in so many steps.
    """
    histories = [[ablation.history(name, seed) for seed in range(ablation.plan.seeds)] for name in CONTROL]
    one, other = np.array(histories)
    difference = float(np.abs(one / other - 1).max())
    assert difference < TOLERANCE, f"the published form is not sigma^2 * MSE: they differ by {difference:.2g}"
    return difference


def interval(differences: np.ndarray, resamples: int = 4000) -> tuple[float, float]:
    """A 95 % bootstrap interval of the mean of paired differences, (seeds, photographs).

    Seeds and photographs are resampled each by itself: a photograph that is easy is easy with every seed.
    """
    chance = np.random.default_rng(numbered_seed(0, "bootstrap", 0))
    seeds, photographs = differences.shape
    chosen = (chance.integers(count, size=(resamples, count)) for count in (seeds, photographs))
    rows, columns = (np.stack([np.bincount(c, minlength=c.size) for c in draw]) / draw.shape[1] for draw in chosen)
    means = np.einsum("rs,sp,rp->r", rows, differences, columns)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def paired(ablation: Ablation) -> dict[str, dict[str, tuple[float, float, float]]]:
    """By loss and figure: the mean difference from `REFERENCE`, and its interval."""
    reference, table = ablation.scores(REFERENCE), {}
    for name in losses():
        differences = {figure: rows - reference[figure] for figure, rows in ablation.scores(name).items()}
        table[name] = {figure: (float(rows.mean()), *interval(rows)) for figure, rows in differences.items()}
    return table


def report(ablation: Ablation) -> str:
    """The tables in Markdown: means, and paired differences with their intervals."""
    start = read_json(ablation.folder / "start.json", ConfigError)
    means = {**start, **{name: ablation.scores(name) for name in losses()}}
    rows = {name: [_mean(scores.get(figure)) for figure in FIGURES] for name, scores in means.items()}
    differences = {
        name: ["{:+.2f} [{:+.2f}, {:+.2f}]".format(*scores[figure]) for figure in FIGURES]
        for name, scores in paired(ablation).items()
        if name != REFERENCE
    }
    return (
        f"{_table('', rows)}\n\n{_table(f'minus {REFERENCE}', differences)}\n\n"
        f"Largest relative difference between the losses of {' and '.join(CONTROL)}: {check_control(ablation):.1e}\n"
    )


def _mean(values: Any) -> str:
    return "" if values is None else f"{np.mean(values):.2f}"


def _table(title: str, rows: Mapping[str, list[str]]) -> str:
    lines = [[title, *FIGURES], ["---", *["---:"] * len(FIGURES)], *([name, *cells] for name, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(ablation: Ablation, path: Path) -> None:
    """The paired differences, a panel a figure."""
    from matplotlib.figure import Figure

    table = paired(ablation)
    names = [name for name in table if name != REFERENCE][::-1]
    figure = Figure(figsize=(13, 2.6), layout="constrained")
    for axes, measured in zip(figure.subplots(1, len(FIGURES), sharey=True), FIGURES, strict=True):
        for height, name in enumerate(names):
            mean, low, high = table[name][measured]
            axes.plot([low, high], [height, height], color="grey", linewidth=2)
            axes.plot(mean, height, "o", color="black", markersize=4)
        axes.axvline(0, color="lightgrey", zorder=0)
        axes.set_yticks(range(len(names)), names)
        axes.set_title(measured, fontsize=9)
        axes.tick_params(labelsize=8)
    figure.suptitle(f"difference from {REFERENCE}, 95 % paired bootstrap interval", fontsize=10)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png")


def main(folder: Path, plan: Plan | None = None) -> None:
    """Run what is not done yet, print the tables and leave them beside the plot."""
    ablation = Ablation(folder, plan or Plan())
    run_all(Pipeline.from_pretrained("tiny-sd3", device="cpu").backbone, ablation)
    text = report(ablation)
    write_text(folder / "table.md", text)
    plot(ablation, folder / "ablation.png")
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "ablation"))
