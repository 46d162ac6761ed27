"""Flow-matching fine-tuning of any backbone with any loss, through accelerate.

Everything random in a run is drawn from `seed` and the number of the sample, never from a running state: a run that is
interrupted and resumed sees the same pictures, crops, noise and noise levels as one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen
from diffusers.optimization import get_scheduler

from d4k.adapters import (
    ADAPTER_WEIGHTS,
    TRAINED,
    add_adapter,
    check_targets,
    loaded_adapters,
    trained_adapter,
    write_adapter,
)
from d4k.config import RunConfig, read_toml, write_toml
from d4k.errors import ConfigError
from d4k.files import atomic_folder, empty_folder
from d4k.models import Card, ModelRef, Training, latest_state, write_card
from d4k.protocols import Backbone, Dataset, Loss
from d4k.seeds import numbered_seed
from d4k.training.data.samples import Feed
from d4k.training.journal import Journal, read_losses
from d4k.training.optimizers import make_optimizer
from d4k.training.state import load_state, save_state
from d4k.training.step import make_accelerator, training_step

__all__ = ["Run", "train", "trained_with"]


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
    accelerator = make_accelerator(config, next(backbone.trainable.parameters()).device)
    feed = Feed(backbone, dataset, config, accelerator.device)
    module = backbone.trainable
    _check_adapters(module, config, resume)
    _check_precision(module, config)
    state = _open_folder(folder, config, resume)
    _free(module, config)
    module.train()
    if config.training.gradient_checkpointing:
        module.enable_gradient_checkpointing()  # type: ignore[operator]
    optimizer = make_optimizer(config.optimizer, module)
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
        with Journal(folder, accelerator, settings.steps, first) as journal:
            for step in range(first + 1, settings.steps + 1):
                value, norm = training_step(accelerator, backbone, loss, feed, config, optimizer, step)
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


def trained_with(backbone: Backbone, config: RunConfig) -> Training:
    """What training used that sampling should use again; it is kept beside the weights.

    Args:
        backbone: loaded.
        config: of the run.

    Returns:
        The size; the backbone's `trained_options`; `guidance` where it is an input of the denoiser; `shift` where the
        run set one.
    """
    own, flow = backbone.defaults, config.flow
    return Training(
        width=config.data.width or own.size,
        height=config.data.height or own.size,
        guidance=own.embedded_guidance if own.embedded_guidance is None or flow.guidance is None else flow.guidance,
        shift=None if flow.shift == 1 else flow.shift,
        options=dict(backbone.trained_options),
    )


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
    add_adapter(module, config.adapter, seed=numbered_seed(config.seed, "adapter", 0))


def _save(backbone: Backbone, folder: Path, config: RunConfig, card: tuple[str, Mapping[str, Any]] | None) -> None:
    """Write what was trained: the whole model, or its adapter alone."""
    with atomic_folder(folder / ("model" if config.adapter is None else "adapter")) as temporary:
        if config.adapter is None:
            backbone.save(temporary)
        else:
            write_adapter(trained_adapter(backbone.trainable), temporary / ADAPTER_WEIGHTS)
        if card is not None:
            began = ModelRef(config.model, config.revision, config.variant, config.transformer)
            base = None if config.adapter is None else began
            write_card(temporary, Card(*card, training=trained_with(backbone, config), base=base))


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
