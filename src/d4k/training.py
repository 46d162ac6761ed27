"""Flow-matching fine-tuning of any backbone with any loss, through accelerate.

Everything random in a run is drawn from `seed` and the number of the sample, never from a running state: a run that is
interrupted and resumed sees the same pictures, crops, noise and noise levels as one that is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import patch_environment
from attrs import frozen
from diffusers.optimization import get_scheduler
from torch import Tensor
from tqdm.auto import tqdm

from d4k.adapter_files import WEIGHTS, write_adapter
from d4k.adapters import TRAINED, add_adapter, check_targets, loaded_adapters, trained_adapter
from d4k.checkpoint import LOADED_WITH, latest_state, load_state, save_state, write_card
from d4k.config import FlowSettings, OptimizerSettings, RunConfig, read_toml, write_toml
from d4k.errors import ConfigError, D4KError, DataError, OutputError
from d4k.files import atomic_folder, empty_folder, write_text
from d4k.flow import draw_sigma, sigma_weight
from d4k.images import Crop, open_picture, to_float, to_tensor
from d4k.protocols import Backbone, Conditioning, Dataset, FlowStep, Loss
from d4k.sampling import check_size

__all__ = ["Batch", "Feed", "Run", "read_losses", "train", "trained_with"]

LOSSES = "losses.jsonl"
CACHED_LATENTS = 256
CACHED_CAPTIONS = 64


@frozen
class Run:
    """A finished fine-tuning run.

    Args:
        output_dir: holds `config.toml`, `losses.jsonl`, `checkpoints/`, `tensorboard/`, and `model/` or `adapter/`.
        steps: optimizer steps done.
        losses: loss of each step.
    """

    output_dir: Path
    steps: int
    losses: tuple[float, ...]

    @property
    def model(self) -> Path:
        """What `Pipeline.from_pretrained` loads as the fine-tuned model: a diffusers folder, or the run's own."""
        return self.output_dir / "model" if self.adapter is None else self.output_dir

    @property
    def adapter(self) -> Path | None:
        """The folder of the adapter, which diffusers' `load_lora_weights` loads too; None without one."""
        folder = self.output_dir / "adapter"
        return folder if folder.is_dir() else None


@frozen(eq=False)
class Batch:
    """What one forward pass is given.

    Args:
        clean: latents (B, C, h, w).
        noise: of the same shape.
        sigma: (B,).
        conditioning: of the B captions.
    """

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    conditioning: Conditioning


class Feed:
    """Pictures and captions of a dataset as encoded batches, by number.

    Args:
        backbone: loaded.
        dataset: not empty.
        config: of the run.
        device: where the batches go.
    """

    def __init__(self, backbone: Backbone, dataset: Dataset, config: RunConfig, device: torch.device) -> None:
        if len(dataset) == 0:
            raise DataError("the dataset is empty: there is nothing to train on")
        self.backbone, self.dataset, self.config, self.device = backbone, dataset, config, device
        size = backbone.defaults.size
        data = config.data
        self.crop = Crop(data.height or size, data.width or size, position=data.crop, flip=data.flip)
        check_size(backbone, self.crop.width, self.crop.height)
        self.fixed = data.crop == "center" and not data.flip
        self.latent = lru_cache(CACHED_LATENTS if self.fixed else 0)(self._latent)
        self.text = lru_cache(CACHED_CAPTIONS)(self._text)
        self.order = lru_cache(2)(self._order)
        self.enlarged: set[str] = set()

    def batch(self, number: int) -> Batch:
        """Batch `number` of the run, counted over all processes; the same on every call."""
        size = self.config.training.batch_size
        items = [self._item(number * size + place) for place in range(size)]
        clean, noise, sigma, texts = zip(*items, strict=True)
        names = texts[0].tensors
        joined = Conditioning({name: torch.cat([text.tensors[name] for text in texts]) for name in names})
        return Batch(
            torch.cat(clean).to(self.device, torch.float32),
            torch.cat(noise).to(self.device),
            torch.cat(sigma).to(self.device),
            joined.to(device=self.device),
        )

    def _item(self, number: int) -> tuple[Tensor, Tensor, Tensor, Conditioning]:
        epoch, place = divmod(number, len(self.dataset))
        index = self.order(epoch)[place]
        flow, seed = self.config.flow, self.config.seed
        generator = torch.Generator().manual_seed(_seed(seed, "noise", number))
        sigma = draw_sigma(
            1,
            density=flow.density,
            mean=flow.mean,
            std=flow.std,
            mode_scale=flow.mode_scale,
            shift=flow.shift,
            generator=generator,
        )
        dropped = torch.rand((), generator=generator).item() < self.config.training.caption_dropout
        clean = self.latent(index, 0 if self.fixed else epoch)
        noise = torch.randn(clean.shape, generator=generator)
        return clean, noise, sigma, self.text("" if dropped else self.dataset[index].caption)

    def _latent(self, index: int, epoch: int) -> Tensor:
        sample = self.dataset[index]
        picture = open_picture(sample.source, label=sample.id)
        self._note_enlarged(sample.id, picture.size)
        cut = self.crop(picture, _seed(self.config.seed, "crop", epoch * len(self.dataset) + index))
        return self.backbone.encode_image(to_float(to_tensor(cut))[None])

    def _note_enlarged(self, name: str, size: tuple[int, int]) -> None:
        if size[0] >= self.crop.width and size[1] >= self.crop.height:
            return
        if not self.enlarged:
            warnings.warn(
                f"picture '{name}' ({size[0]}x{size[1]}) is enlarged to cover {self.crop.width}x{self.crop.height}: "
                "the model learns blur from it. Further ones are only counted.",
                stacklevel=2,
            )
        self.enlarged.add(name)

    def _text(self, caption: str) -> Conditioning:
        return self.backbone.encode_text([caption])

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(_seed(self.config.seed, "order", epoch))
        return torch.randperm(len(self.dataset), generator=generator).tolist()


def _seed(seed: int, purpose: str, number: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def train(
    backbone: Backbone,
    dataset: Dataset,
    loss: Loss,
    config: RunConfig,
    *,
    resume: bool = False,
    card: tuple[str, Mapping[str, Any]] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> Run:
    """Fine-tune the backbone's trainable module, or an adapter of it.

    Args:
        backbone: loaded; its trainable module is changed in place, or given an adapter that stays.
        dataset: captioned pictures.
        loss: from a predicted velocity and a step to (B,).
        config: of the run; `model`, `dataset` and `loss` in it are names for the record.
        resume: go on from the newest checkpoint in the output folder.
        card: backbone name and options, kept beside the saved model.
        on_step: called with the step and its loss.

    Raises:
        OutputError: the output folder is not empty, or cannot be written.
        ConfigError: a setting does not suit the backbone, or differs from that of the run to resume.
        DataError: a picture cannot be used.
        D4KError: the loss is not finite.
    """
    folder = Path(config.output_dir)
    accelerator = _accelerator(config, next(backbone.trainable.parameters()).device)
    feed = Feed(backbone, dataset, config, accelerator.device)
    module = backbone.trainable
    _check_adapters(module, config, resume)
    _check_precision(module, config)
    state = _open_folder(folder, config, resume)
    _free(module, config)
    module.train()
    if config.training.gradient_checkpointing:
        module.enable_gradient_checkpointing()  # type: ignore[operator]
    optimizer = _optimizer(config.optimizer, module)
    settings = config.training
    schedule = get_scheduler(
        config.schedule.name,
        optimizer,
        num_warmup_steps=config.schedule.warmup_steps,
        num_training_steps=settings.steps,
    )
    first = 0 if state is None else load_state(state, module, optimizer, schedule)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    backbone.trainable = wrapped
    try:
        with _Journal(folder, accelerator, settings.steps, first) as journal:
            for step in range(first + 1, settings.steps + 1):
                value, norm = _step(accelerator, backbone, loss, feed, config, optimizer, step)
                journal.add(step, value, norm, schedule.get_last_lr()[0])
                schedule.step()
                if settings.save_every and step % settings.save_every == 0 and accelerator.is_main_process:
                    save_state(folder / "checkpoints", step, module, optimizer, schedule)
                if on_step is not None:
                    on_step(step, value)
    finally:
        # accelerate patches the module's own forward with autocast, which must not outlive the run
        backbone.trainable = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        module.eval()
    if accelerator.is_main_process:
        if not settings.save_every or settings.steps % settings.save_every:
            save_state(folder / "checkpoints", settings.steps, module, optimizer, schedule)
        _save(backbone, folder, config, card)
    accelerator.wait_for_everyone()
    return Run(folder, settings.steps, tuple(row["loss"] for row in read_losses(folder)))


def trained_with(backbone: Backbone, flow: FlowSettings) -> dict[str, Any]:
    """What training used that drawing should use again; `d4k.checkpoint.write_card` keeps it beside the weights.

    Args:
        backbone: loaded.
        flow: of the run.

    Returns:
        `downscale`, and where the backbone has them the options `positions` and `text_tokens`; `guidance` where it is
        an input of the denoiser; `shift` where the run set one.
    """
    embedded = backbone.defaults.embedded_guidance
    facts = {
        "downscale": backbone.latent.downscale,
        "positions": getattr(backbone, "positions", None),
        "text_tokens": getattr(backbone, "text_tokens", None),
        "guidance": embedded if embedded is None or flow.guidance is None else flow.guidance,
        "shift": None if flow.shift == 1 else flow.shift,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _check_adapters(module: torch.nn.Module, config: RunConfig, resume: bool) -> None:
    """Refuse adapters that the run would mix with what it trains, and targets that there are not."""
    present = loaded_adapters(module)
    if present and not (resume and config.adapter and present == [TRAINED]):
        raise ConfigError(
            f"the model has adapters ({', '.join(present)}), which would be mixed with what is trained; "
            "merge them first (Pipeline.merge_adapters), or load the model without them"
        )
    if config.adapter is not None:
        check_targets(module, config.adapter.targets)


def _check_precision(module: torch.nn.Module, config: RunConfig) -> None:
    dtype = next(module.parameters()).dtype
    if dtype != torch.float32 and config.training.precision == "no":
        raise ConfigError(
            f"the model's weights are {str(dtype).removeprefix('torch.')}, and training.precision = 'no' computes in "
            "float32; set it to 'bf16' or 'fp16', or load the model in float32"
        )


def _free(module: torch.nn.Module, config: RunConfig) -> None:
    """Let go of what is trained: all of the module, or a new adapter."""
    if config.adapter is None:
        module.requires_grad_(True)
        return
    if loaded_adapters(module):  # what the part of the run that was interrupted left
        module.unload_lora()  # type: ignore[operator]
    add_adapter(module, config.adapter, seed=_seed(config.seed, "adapter", 0))


def _save(backbone: Backbone, folder: Path, config: RunConfig, card: tuple[str, Mapping[str, Any]] | None) -> None:
    """Write what was trained: the whole model, or its adapter alone."""
    with atomic_folder(folder / ("model" if config.adapter is None else "adapter")) as temporary:
        if config.adapter is None:
            backbone.save(temporary)
        else:
            write_adapter(trained_adapter(backbone.trainable), temporary / WEIGHTS)
        if card is not None:
            facts = trained_with(backbone, config.flow)
            base: dict[str, Any] = {}
            if config.adapter is not None:
                given = {name: getattr(config, name) for name in LOADED_WITH}
                base = {"base": config.model, "base_loaded_with": given}
            write_card(temporary, *card, training=facts, **base)


@contextmanager
def _dropout(config: RunConfig, number: int, device: torch.device) -> Iterator[None]:
    """Draw an adapter's dropout from the seed and the number of the batch."""
    if config.adapter is None or not config.adapter.dropout:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_seed(config.seed, "dropout", number))
        yield


def _step(
    accelerator: Accelerator,
    backbone: Backbone,
    loss: Loss,
    feed: Feed,
    config: RunConfig,
    optimizer: Any,
    step: int,
) -> tuple[float, float]:
    accumulation, total, norm = config.training.accumulation, 0.0, 0.0
    for part in range(accumulation):
        number = ((step - 1) * accumulation + part) * accelerator.num_processes + accelerator.process_index
        batch = feed.batch(number)
        with accelerator.accumulate(backbone.trainable):
            flow = FlowStep(batch.clean, batch.noise, batch.sigma)
            with accelerator.autocast(), _dropout(config, number, accelerator.device):
                velocity = backbone.velocity(flow.noisy, batch.sigma, batch.conditioning, config.flow.guidance)
            weight = sigma_weight(batch.sigma, config.flow.weighting)
            value = (weight * loss(velocity, flow)).mean()
            if not torch.isfinite(value):
                raise D4KError(
                    f"the loss became {value.item()} at step {step}; lower optimizer.lr, or set training.precision to "
                    "'bf16' or 'no'. Checkpoints up to here are kept."
                )
            accelerator.backward(value)
            if accelerator.sync_gradients and config.training.clip:
                norm = float(accelerator.clip_grad_norm_(backbone.trainable.parameters(), config.training.clip))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        total += accelerator.reduce(value.detach(), "mean").item()
    return total / accumulation, norm


class _Journal:
    """Progress bar, `losses.jsonl` and TensorBoard of a run."""

    def __init__(self, folder: Path, accelerator: Accelerator, steps: int, first: int) -> None:
        self.accelerator, self.main = accelerator, accelerator.is_main_process
        self.path = folder / LOSSES
        kept = [row for row in read_losses(folder) if row["step"] <= first] if first else []
        if self.main:
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        accelerator.init_trackers("tensorboard")
        self.bar = tqdm(total=steps, initial=first, desc="training", unit="step", disable=not self.main)
        self.started = time.monotonic()

    def __enter__(self) -> _Journal:
        return self

    def add(self, step: int, loss: float, norm: float, lr: float) -> None:
        """Record a step."""
        self.accelerator.log({"loss": loss, "gradient norm": norm, "learning rate": lr}, step=step)
        if not self.main:
            return
        row = {"step": step, "loss": loss, "gradient_norm": norm, "lr": lr, "seconds": time.monotonic() - self.started}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}; resume with --resume once there is room"
            ) from error
        self.bar.set_postfix(loss=f"{loss:.4f}")
        self.bar.update()

    def __exit__(self, *exception: object) -> None:
        self.bar.close()
        self.accelerator.end_training()


def read_losses(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `losses.jsonl`: step, loss, gradient_norm, lr, seconds. Empty where there is none.

    A last line that an interruption cut short is left out.
    """
    return list(_rows(folder / LOSSES))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    for line in lines[:-1]:
        yield json.loads(line)


def _open_folder(folder: Path, config: RunConfig, resume: bool) -> Path | None:
    """Write the resolved configuration into an empty folder, or find the checkpoint to resume from."""
    record = folder / "config.toml"
    if not resume:
        empty_folder(folder)
        write_toml(config, record)
        return None
    state = latest_state(folder / "checkpoints")
    if state is None:
        raise ConfigError(f"nothing to resume in {folder}: it has no checkpoint; start the run without --resume")
    changed = sorted(_changes(read_toml(record), config))
    if changed:
        raise ConfigError(
            f"cannot resume {folder} with other settings than it began with: {', '.join(changed)}. "
            f"Give those of {record}, or start a new run. Only training.steps and training.save_every may change."
        )
    write_toml(config, record)
    return state


def _changes(before: Mapping[str, Any], config: RunConfig) -> Iterator[str]:
    free = {"training.steps", "training.save_every"}
    old, new = _flat(before), _flat(attrs.asdict(config))
    for key in old.keys() | new.keys():
        if old.get(key) != new.get(key) and key not in free:
            yield key


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _accelerator(config: RunConfig, device: torch.device) -> Accelerator:
    # a second run in one process may ask for another precision or device, which accelerate's shared state would refuse
    AcceleratorState._reset_state(reset_partial_state=True)
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    with patch_environment(**({} if launched else {"ACCELERATE_TORCH_DEVICE": str(device)})):
        return Accelerator(
            gradient_accumulation_steps=config.training.accumulation,
            mixed_precision=config.training.precision,
            cpu=device.type == "cpu",
            log_with="tensorboard",
            project_dir=config.output_dir,
        )


def _optimizer(settings: OptimizerSettings, module: torch.nn.Module) -> torch.optim.Optimizer:
    optimizer_class: Any = torch.optim.AdamW
    if settings.name == "adamw-8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise ConfigError(
                "optimizer.name = 'adamw-8bit' needs bitsandbytes: pip install bitsandbytes, or choose 'adamw'"
            ) from error
        optimizer_class = AdamW8bit
    optimizer: torch.optim.Optimizer = optimizer_class(
        [p for p in module.parameters() if p.requires_grad],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    return optimizer
