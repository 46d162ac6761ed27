"""What a step of `d4k train` costs beside the same step written bare, and beside diffusers' own script for SD3.

The tiny SD3 is trained from the same weights on the same cached pictures, captions, noise and noise levels by:

- d4k: `d4k.training.train`, with its feed, its journal and its progress bar;
- a bare loop: forward, loss, backward, clip, optimizer step, zero_grad, on batches that were made beforehand;
- what `examples/dreambooth/train_dreambooth_sd3.py` of diffusers does in each step: it encodes the pictures with the
  autoencoder, draws noise and noise levels with diffusers' functions, and logs through accelerate. Captions are encoded
  beforehand, which that script does where all pictures share one;
- the same with the pictures encoded beforehand, too.

Every step of d4k is followed by one step of each of the others, in an order that turns, so that all of them see the
same machine; the ratios are medians over such rounds, of wall time and of the processor time of the whole process.

    python benchmarks/overhead.py [--rounds N] [--size PIXELS] [--batch-size N] [--precision no|bf16]

Source: huggingface/diffusers, examples/dreambooth/train_dreambooth_sd3.py (Apache-2.0), its training loop.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from attrs import define, field
from diffusers.optimization import get_scheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from d4k import Pipeline
from d4k.config import RunConfig, from_mapping
from d4k.images import Crop, open_picture, to_float, to_tensor
from d4k.plugins import create
from d4k.training import Batch, Encoding, Feed, MSELoss, choose_pictures, train
from d4k.training.optimizers import make_optimizer

MODEL = "tiny-sd3"
PHOTOS = ["astronaut", "coffee", "rocket", "hubble_deep_field", "retina", "cell", "camera", "brick"]
WARM_UP = 5
Step = Callable[[int], float]
"""Does one optimizer step, by its number from 1, and returns its loss."""


def run_config(folder: Path, steps: int, arguments: argparse.Namespace) -> RunConfig:
    """The settings of the run, which all of the loops share."""
    return from_mapping(
        RunConfig,
        {
            "model": MODEL,
            "dataset": {"name": "sample-photos", "options": {"names": PHOTOS}},
            "output_dir": str(folder / "run"),
            "loss": {"name": "mse"},
            "data": {
                "width": arguments.size,
                "height": arguments.size,
                "cache": str(folder / "cache"),
                "cache_dtype": "float32",  # so that losses can be compared with those of batches that are not cached
            },
            "training": {
                "steps": steps,
                "batch_size": arguments.batch_size,
                "precision": arguments.precision,
                "caption_dropout": 0.0,
                "save_every": 0,
            },
        },
    )


def dataset_of(config: RunConfig) -> Any:
    """The pictures of the run."""
    return create("dataset", config.dataset.name, **config.dataset.options)


def batches_of(backbone: Any, config: RunConfig) -> list[Batch]:
    """The batches of the run, as d4k's own loop is given them."""
    dataset = dataset_of(config)
    chosen = choose_pictures(dataset, backbone, config)
    feed = Feed(Encoding(backbone, dataset), chosen, config, torch.device("cpu"))
    return [feed.batch(number) for number in range(config.training.steps)]


def bare_loop(module: Any, batches: list[Batch], config: RunConfig) -> Step:
    """The least that a step can be, with the optimizer of the run."""
    module.requires_grad_(True).train()
    optimizer = make_optimizer(config.optimizer, module)
    parameters = list(module.parameters())
    mixed = config.training.precision == "bf16"

    def step(number: int) -> float:
        batch = batches[number - 1]
        sigma = batch.sigma[:, None, None, None]
        noisy = (1 - sigma) * batch.clean + sigma * batch.noise
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            velocity = module(
                hidden_states=noisy,
                timestep=batch.sigma * 1000,
                encoder_hidden_states=batch.conditioning.tensors["states"],
                pooled_projections=batch.conditioning.tensors["pooled"],
                return_dict=False,
            )[0]
        loss = (velocity.float() - (batch.noise - batch.clean)).square().mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, config.training.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


class Script:
    """The work of a step of diffusers' script, with its defaults, through accelerate as it is used there.

    Args:
        pipeline: of diffusers; its denoiser is trained.
        batches: of the run; their text is used, and their latents where pictures are not encoded.
        config: of the run.
        folder: for what TensorBoard reads.
        encodes: encode the pictures in each step.
    """

    def __init__(self, pipeline: Any, batches: list[Batch], config: RunConfig, folder: Path, *, encodes: bool) -> None:
        self.batches, self.encodes = batches, encodes
        self.accelerator = Accelerator(
            mixed_precision=config.training.precision, log_with="tensorboard", project_dir=folder, cpu=True
        )
        self.vae, self.noise_scheduler = pipeline.vae, pipeline.scheduler
        module, settings = pipeline.transformer.requires_grad_(True).train(), config.optimizer
        optimizer = torch.optim.AdamW(
            [{"params": module.parameters(), "lr": settings.lr}],
            betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay,
            eps=settings.eps,
        )
        schedule = get_scheduler("constant", optimizer=optimizer)
        pixels: Any = self._pixels(config)
        loader: Any = DataLoader(pixels, batch_size=config.training.batch_size, shuffle=True)
        self.module, self.optimizer, self.loader, self.schedule = self.accelerator.prepare(
            module, optimizer, loader, schedule
        )
        self.largest = config.training.clip
        self.accelerator.init_trackers("script")
        self.bar = tqdm(total=config.training.steps, desc="script")

    def _pixels(self, config: RunConfig) -> list[Tensor]:
        """The pictures, cut once and held as the script holds them."""
        data, samples = config.data, dataset_of(config)
        crop = Crop(data.height or 0, data.width or 0)
        return [to_float(to_tensor(crop(open_picture(samples[i].source), 0))) for i in range(len(samples))]

    @cached_property
    def pictures(self) -> Iterator[Tensor]:
        """Batches of pictures, epoch after epoch."""

        def forever() -> Iterator[Tensor]:
            while True:
                yield from self.loader

        return forever()

    def __call__(self, number: int) -> float:
        """Do one step."""
        text = self.batches[number - 1].conditioning.tensors
        with self.accelerator.accumulate(self.module):
            clean = self._latents(number)
            noise = torch.randn_like(clean)
            timesteps, sigma = self._noise_levels(clean)
            noisy = (1.0 - sigma) * clean + sigma * noise
            predicted = self.module(
                hidden_states=noisy,
                timestep=timesteps,
                encoder_hidden_states=text["states"],
                pooled_projections=text["pooled"],
                return_dict=False,
            )[0]
            predicted = predicted * (-sigma) + noisy  # the script's --precondition_outputs, which is its default
            weight = compute_loss_weighting_for_sd3(weighting_scheme="logit_normal", sigmas=sigma)
            errors = weight.float() * (predicted.float() - clean.float()) ** 2
            loss = errors.reshape(clean.shape[0], -1).mean(1).mean()
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.module.parameters(), self.largest)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        self.bar.update(1)
        value = float(loss.detach())
        logs = {"loss": value, "lr": self.schedule.get_last_lr()[0]}
        self.bar.set_postfix(**logs)
        self.accelerator.log(logs, step=number)
        return value

    def _latents(self, number: int) -> Tensor:
        if not self.encodes:
            return self.batches[number - 1].clean
        latent: Tensor = self.vae.encode(next(self.pictures)).latent_dist.sample()
        return latent.sub(self.vae.config.shift_factor).mul(self.vae.config.scaling_factor)

    def _noise_levels(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        scheduler = self.noise_scheduler
        u = compute_density_for_timestep_sampling("logit_normal", len(clean), 0.0, 1.0, 1.29)
        indices = (u * scheduler.config.num_train_timesteps).long()
        timesteps = scheduler.timesteps[indices]
        places = [(scheduler.timesteps == t).nonzero().item() for t in timesteps]
        return timesteps, scheduler.sigmas[places].flatten()[:, None, None, None]


@define
class Rounds:
    """Times steps of d4k, and after each of them a step of every other loop.

    Args:
        make: makes the others, once d4k has set accelerate up.

    Attributes:
        wall: seconds of the steps of each loop.
        cpu: the same of the processor, of all threads.
        losses: of the steps of each loop.
    """

    make: Callable[[], dict[str, Step]]
    others: dict[str, Step] = field(factory=dict)
    wall: dict[str, list[float]] = field(factory=dict)
    cpu: dict[str, list[float]] = field(factory=dict)
    losses: dict[str, list[float]] = field(factory=dict)
    began: tuple[float, float] = (0.0, 0.0)

    def on_step(self, number: int, loss: float) -> None:
        """Take down the step of d4k that has ended, let the others do theirs, and begin the next."""
        self._note("d4k", loss)
        self.others = self.others or self.make()
        names = list(self.others)
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned:
            self.began = (time.perf_counter(), time.process_time())
            self._note(name, self.others[name](number))
        self.began = (time.perf_counter(), time.process_time())

    def _note(self, name: str, loss: float) -> None:
        now = (time.perf_counter(), time.process_time())
        for kept, start, end in zip((self.wall, self.cpu), self.began, now, strict=True):
            kept.setdefault(name, []).append(end - start)
        self.losses.setdefault(name, []).append(loss)

    def ratio(self, peer: str, seconds: dict[str, list[float]]) -> float:
        """The median over the rounds, after the first few, of d4k's time by another's."""
        pairs = zip(seconds["d4k"][WARM_UP:], seconds[peer][WARM_UP:], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def run_rounds(arguments: argparse.Namespace, folder: Path) -> Rounds:
    """Train with each of the loops, in turns."""
    config = run_config(folder, arguments.rounds + WARM_UP, arguments)
    backbone: Any = Pipeline.from_pretrained(MODEL).backbone
    batches = batches_of(backbone, config)
    bare, encoding, cached = (copy.deepcopy(backbone.pipeline) for _ in range(3))

    def others() -> dict[str, Step]:
        return {
            "bare loop": bare_loop(bare.transformer, batches, config),
            "diffusers' script": Script(encoding, batches, config, folder / "encoding", encodes=True),
            "diffusers' script, latents cached": Script(cached, batches, config, folder / "cached", encodes=False),
        }

    rounds = Rounds(others)
    train(backbone, dataset_of(config), MSELoss(), config, on_step=rounds.on_step)
    return rounds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="steps of each loop that are timed")
    parser.add_argument("--size", type=int, default=256, help="width and height of the pictures")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds = run_rounds(arguments, Path(folder))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {MODEL}, {arguments.batch_size} pictures of "
        f"{arguments.size}x{arguments.size}, precision {arguments.precision}, median of {arguments.rounds} rounds\n"
    )
    print("| a step of | wall time | d4k / it | processor time | d4k / it |\n" + "| --- " * 5 + "|")
    for name in rounds.wall:
        cells = [name]
        for seconds in (rounds.wall, rounds.cpu):
            cells += [
                f"{statistics.median(seconds[name][WARM_UP:]) * 1e3:.1f} ms",
                f"{rounds.ratio(name, seconds):.3f}",
            ]
        print(f"| {' | '.join(cells)} |")
    apart = max(abs(a / b - 1) for a, b in zip(rounds.losses["d4k"], rounds.losses["bare loop"], strict=True))
    print(f"\nlosses of d4k and of the bare loop are {apart:.1e} apart at most")


if __name__ == "__main__":
    main()
