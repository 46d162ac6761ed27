"""The settings of a fine-tuning run, section by section: frozen classes whose fields are the keys of the TOML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen

from d4k.config.rules import flag, names, number, one_of, optional, table, text, whole
from d4k.errors import ConfigError

__all__ = [
    "AdapterSettings",
    "Component",
    "DataSettings",
    "FlowSettings",
    "OptimizerSettings",
    "RunConfig",
    "ScheduleSettings",
    "TrainingSettings",
]


@frozen
class Component:
    """A registered component by name.

    Args:
        name: as `d4k plugins` lists it.
        options: of the component.
    """

    name: str = field(validator=text())
    options: Mapping[str, Any] = field(factory=dict, validator=table())


@frozen
class DataSettings:
    """How pictures are cut.

    Args:
        width: pixels; None is the backbone's own size.
        height: pixels; None is the backbone's own size.
        crop: `center`, or `random` (seeded, new in every epoch).
        flip: mirror half of the pictures.
    """

    width: int | None = field(default=None, validator=optional(whole(1)))
    height: int | None = field(default=None, validator=optional(whole(1)))
    crop: Literal["center", "random"] = field(default="center", validator=one_of("center", "random"))
    flip: bool = field(default=False, validator=flag())


@frozen
class FlowSettings:
    """Which noise levels are trained, and how much each counts; see `d4k.flow`.

    Args:
        density: `uniform` (Diffusion-4K), `logit-normal` (SD3) or `mode`.
        mean: of the logit-normal density.
        std: of the logit-normal density.
        mode_scale: of the mode density, from -1 to 2 / (pi - 2).
        shift: moves noise levels towards 1; 1 changes nothing.
        weighting: `none`, `sigma-sqrt` or `cosmap`.
        guidance: embedded guidance while training; None is the backbone's own.
    """

    density: Literal["uniform", "logit-normal", "mode"] = field(
        default="logit-normal", validator=one_of("uniform", "logit-normal", "mode")
    )
    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(0, above=True))
    mode_scale: float = field(default=1.29, validator=number(-1, 2 / (math.pi - 2)))
    shift: float = field(default=1.0, validator=number(0, above=True))
    weighting: Literal["none", "sigma-sqrt", "cosmap"] = field(
        default="none", validator=one_of("none", "sigma-sqrt", "cosmap")
    )
    guidance: float | None = field(default=None, validator=optional(number(0)))


@frozen
class OptimizerSettings:
    """AdamW.

    Args:
        name: `adamw`, or `adamw-8bit` (needs bitsandbytes).
        lr: learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the denominator.
        weight_decay: decoupled.
    """

    name: str = field(default="adamw", validator=one_of("adamw", "adamw-8bit"))
    lr: float = field(default=1e-4, validator=number(0, above=True))
    beta1: float = field(default=0.9, validator=number(0, 1, below=True))
    beta2: float = field(default=0.999, validator=number(0, 1, below=True))
    eps: float = field(default=1e-8, validator=number(0, above=True))
    weight_decay: float = field(default=1e-4, validator=number(0))


@frozen
class ScheduleSettings:
    """Learning-rate schedule of diffusers.

    Args:
        name: what `diffusers.optimization.get_scheduler` calls it.
        warmup_steps: steps from zero to the full rate; not with `constant`.
    """

    name: str = field(
        default="constant",
        validator=one_of("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"),
    )
    warmup_steps: int = field(default=0, validator=whole(0))

    @warmup_steps.validator
    def _check_used(self, attribute: attrs.Attribute[int], value: int) -> None:
        if value and self.name == "constant":
            raise ConfigError(f"{attribute.name} has no effect on 'constant'; choose 'constant_with_warmup'")


@frozen
class TrainingSettings:
    """The loop.

    Args:
        steps: optimizer steps.
        batch_size: pictures of one forward pass, on each process.
        accumulation: forward passes of one optimizer step.
        clip: largest norm of the gradient; 0 does not clip.
        gradient_checkpointing: recompute activations instead of keeping them.
        precision: `no` (float32), `bf16` or `fp16`; mixed precision of accelerate.
        caption_dropout: share of captions replaced by the empty one, so that classifier-free guidance keeps working.
        save_every: steps between checkpoints; 0 saves only at the end.
    """

    steps: int = field(default=1000, validator=whole(1))
    batch_size: int = field(default=1, validator=whole(1))
    accumulation: int = field(default=1, validator=whole(1))
    clip: float = field(default=1.0, validator=number(0))
    gradient_checkpointing: bool = field(default=False, validator=flag())
    precision: str = field(default="no", validator=one_of("no", "bf16", "fp16"))
    caption_dropout: float = field(default=0.1, validator=number(0, 1))
    save_every: int = field(default=500, validator=whole(0))


def _words(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@frozen
class AdapterSettings:
    """A low-rank adapter (LoRA), trained in place of the model's own weights, which stay as they are.

    Args:
        rank: of each update; more can hold more, and takes more room.
        alpha: an update counts alpha / rank; None is the rank, so that it counts 1.
        targets: ends of the names of the layers that get one; None is the attention projections.
        dropout: share of a layer's input that its adapter does not see while training.

    Source: Hu et al. 2021, arXiv 2106.09685.
    """

    rank: int = field(default=16, validator=whole(1))
    alpha: float | None = field(default=None, validator=optional(number(0, above=True)))
    targets: tuple[str, ...] | None = field(default=None, converter=_words, validator=optional(names()))
    dropout: float = field(default=0.0, validator=number(0, 1, below=True))


@frozen
class RunConfig:
    """Everything that defines a run.

    Args:
        model: a registered checkpoint, a local folder in the diffusers layout, or a Hub id.
        dataset: what to train on.
        output_dir: folder of the run; must not exist, or be empty, unless the run is resumed.
        loss: what to minimise.
        seed: of crops, noise and noise levels.
        revision: of a Hub id: branch, tag or commit.
        variant: of the model's weight files, such as `fp16`.
        transformer: a file, a folder or a Hub id whose denoiser replaces that of the model.
        backbone: options of the model's backbone.
        data: how pictures are cut.
        flow: which noise levels are trained.
        optimizer: AdamW.
        schedule: of the learning rate.
        training: the loop.
        adapter: train a low-rank adapter (LoRA) in place of the model's weights; None trains the weights.
    """

    model: str = field(validator=text())
    dataset: Component
    output_dir: str = field(validator=text())
    loss: Component = Component("wavelet")
    seed: int = field(default=0, validator=whole(0))
    revision: str | None = field(default=None, validator=optional(text()))
    variant: str | None = field(default=None, validator=optional(text()))
    transformer: str | None = field(default=None, validator=optional(text()))
    backbone: Mapping[str, Any] = field(factory=dict, validator=table())
    data: DataSettings = DataSettings()
    flow: FlowSettings = FlowSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    adapter: AdapterSettings | None = None
