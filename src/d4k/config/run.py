"""The settings of a fine-tuning run, section by section: frozen classes whose fields are the keys of the TOML file.

The lines of each Args are the rows of the table in docs/training.md: each is a whole statement.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen

from d4k.config.choices import (
    CROPS,
    DENSITIES,
    OPTIMIZERS,
    PRECISIONS,
    QUANTIZATIONS,
    SCHEDULES,
    WEIGHTINGS,
)
from d4k.config.engine import EMASettings, ParallelSettings, TrackingSettings, ValidationSettings
from d4k.config.rules import (
    as_tuple,
    flag,
    named_or_class,
    names,
    number,
    number_or,
    one_of,
    optional,
    table,
    text,
    whole,
    word_or_sizes,
)
from d4k.errors import ConfigError
from d4k.protocols import Density, Weighting

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
    """A registered dataset or loss by name.

    Args:
        name: Name of the dataset or loss to use, as `d4k plugins` lists it.
        options: Options of the class behind that name, each set as `options.NAME = value`.
    """

    name: str = field(validator=text())
    options: Mapping[str, Any] = field(factory=dict, validator=table())


@frozen
class DataSettings:
    """How pictures are resized and cut.

    Args:
        width: Width in pixels that pictures are cut to. Left out, it is the size that the model was trained at.
        height: Height in pixels that pictures are cut to. Left out, it is the size that the model was trained at.
        crop: Where a picture is cut. `center` takes the middle, `random` another place in every epoch.
        flip: Mirrors half of the pictures, others in every epoch.
        crops: Cuts of each picture that the cache keeps, where `crop` is `random` or `flip` is on. Each epoch takes the
            next one. Left out, such pictures are not cached, but encoded anew at every step.
        enlarge: Enlarges pictures that are smaller than what they are cut to, which teaches the model blur. Otherwise
            they are left out, counted and named.
        buckets: Sizes that pictures are cut to, each picture to the one nearest its shape. `off` cuts all to `width` x
            `height`, `auto` makes sizes of other shapes with as many pixels, a list such as `["4096x4096",
            "3072x5440"]` names them.
        cache: Folder where encoded pictures and captions are kept and found again. `auto` is `d4k-cache` beside
            `output_dir`, `off` encodes every picture again at every step.
        cache_dtype: What the cache keeps its numbers in: `bfloat16`, `float16` or `float32`.
        posterior: Which latent of a picture is trained: the `mode` of the autoencoder's posterior, or a `sample` of it,
            as in Diffusion-4K.
        unreadable: What happens to a picture that cannot be encoded. `stop` names all of them and ends, `skip` names
            them and goes on without.
        workers: Processes that load pictures and latents ahead of the step, for each process that trains. 0 loads them
            when they are needed.
    """

    width: int | None = field(default=None, validator=optional(whole(1)))
    height: int | None = field(default=None, validator=optional(whole(1)))
    crop: Literal["center", "random"] = field(default="center", validator=one_of(*CROPS))
    flip: bool = field(default=False, validator=flag())
    crops: int | None = field(default=None, validator=optional(whole(1)))
    enlarge: bool = field(default=False, validator=flag())
    buckets: str | tuple[str, ...] = field(default="off", converter=as_tuple, validator=word_or_sizes("off", "auto"))
    cache: str = field(default="auto", validator=text())
    cache_dtype: str = field(default="bfloat16", validator=one_of(*PRECISIONS.values()))
    posterior: Literal["mode", "sample"] = field(default="mode", validator=one_of("mode", "sample"))
    unreadable: Literal["stop", "skip"] = field(default="stop", validator=one_of("stop", "skip"))
    workers: int = field(default=2, validator=whole(0, 256))

    @crops.validator
    def _check_crops_used(self, attribute: attrs.Attribute[int | None], value: int | None) -> None:
        if value is not None and self.crop == "center" and not self.flip:
            raise ConfigError(
                f"{attribute.name} has no effect on pictures that are all cut in their middle; set crop = 'random' or "
                "flip = true, or leave it out"
            )


@frozen
class FlowSettings:
    """Which noise levels (sigma, from 0 to 1) are trained, and how much each counts; see `d4k.flow`.

    Args:
        density: How noise levels are sampled. `uniform` takes all alike, `logit-normal` (SD3) and `mode` prefer the
            middle, `beta` is the beta distribution of `alpha` and `beta`.
        mean: Mean of the normal distribution whose sigmoid `logit-normal` takes. Above 0 there is more noise.
        std: Standard deviation of the normal distribution whose sigmoid `logit-normal` takes. A larger one takes more
            levels near 0 and 1.
        mode_scale: How much `mode` prefers the middle, from -1 to 1.75. 0 takes all alike, less prefers both ends.
        alpha: First parameter of `beta`. A larger one moves noise levels towards 1.
        beta: Second parameter of `beta`. A larger one moves noise levels towards 0. UltraHR uses 2 and 4.
        shift: Moves sampled noise levels towards 1, as large pictures need. 1 changes nothing, SD3 uses 3, `auto` takes
            what sampling at this size takes. Left out, it is `auto` above the size that the model was trained at, and 1
            otherwise.
        weighting: Factor of a sample's loss by its noise level. `none` is 1, `sigma-sqrt` is 1 / sigma^2, `cosmap`
            prefers the middle.
        guidance: Guidance scale that the denoiser is told while training, where it takes one (FLUX.1). Left out, it is
            the backbone's own.
    """

    density: Density = field(default="logit-normal", validator=one_of(*DENSITIES))
    mean: float = field(default=0.0, validator=number())
    std: float = field(default=1.0, validator=number(0, above=True))
    mode_scale: float = field(default=1.29, validator=number(-1, 2 / (math.pi - 2)))
    alpha: float = field(default=2.0, validator=number(0, above=True))
    beta: float = field(default=4.0, validator=number(0, above=True))
    shift: float | Literal["auto"] | None = field(
        default=None, validator=optional(number_or("auto", number(0, above=True)))
    )
    weighting: Weighting = field(default="none", validator=one_of(*WEIGHTINGS))
    guidance: float | None = field(default=None, validator=optional(number(0)))

    @property
    def recorded_shift(self) -> float | None:
        """The shift that pictures must be sampled with afterwards; None leaves it to their size."""
        return self.shift if isinstance(self.shift, int | float) and self.shift != 1 else None


@frozen
class OptimizerSettings:
    """What turns gradients into changes of the weights.

    Args:
        name: Which optimizer. `adamw` is torch's, `adamw-8bit` keeps its state in a quarter of the memory, `adamw-bf16`
            keeps weights and state in bfloat16 and rounds at random, `prodigy` finds its own learning rate,
            `schedule-free` needs no schedule, `muon` is torch's. Any other is named as `module:Class`.
        lr: Learning rate: about how much a weight may change in one step.
        beta1: Share of the running mean of gradients that is kept in each step.
        beta2: Share of the running mean of squared gradients that is kept in each step.
        eps: Small number that keeps AdamW from dividing by zero.
        weight_decay: Share of each weight, times the learning rate, that is taken off in each step.
        options: Further options of the optimizer's class, each set as `options.NAME = value`.
    """

    name: str = field(default="adamw", validator=named_or_class(*OPTIMIZERS))
    lr: float = field(default=1e-4, validator=number(0, above=True))
    beta1: float = field(default=0.9, validator=number(0, 1, below=True))
    beta2: float = field(default=0.999, validator=number(0, 1, below=True))
    eps: float = field(default=1e-8, validator=number(0, above=True))
    weight_decay: float = field(default=1e-4, validator=number(0))
    options: Mapping[str, Any] = field(factory=dict, validator=table())


@frozen
class ScheduleSettings:
    """How the learning rate changes during the run, computed by diffusers.

    Args:
        name: Course of the learning rate: `constant`, `constant_with_warmup`, `linear`, `cosine`,
            `cosine_with_restarts` or `polynomial`.
        warmup_steps: Steps in which the learning rate rises from 0. Not with `constant`.
    """

    name: str = field(default="constant", validator=one_of(*SCHEDULES))
    warmup_steps: int = field(default=0, validator=whole(0))

    @warmup_steps.validator
    def _check_used(self, attribute: attrs.Attribute[int], value: int) -> None:
        if value and self.name == "constant":
            raise ConfigError(f"{attribute.name} has no effect on 'constant'; choose 'constant_with_warmup'")


@frozen
class TrainingSettings:
    """The loop.

    Args:
        steps: Optimizer steps of the whole run, also of one that is resumed.
        batch_size: Pictures that go through the model at once. More need more memory.
        accumulation: Forward passes that make one optimizer step. 8 passes of 4 pictures train as 32 pictures at once.
        clip: Largest norm of the gradient; a longer one is scaled down to it. 0 does not clip.
        gradient_checkpointing: Computes activations twice instead of keeping them. Slower, and far less memory.
        activation_offload: Keeps activations in CPU memory from the forward to the backward pass. Slower, and less
            memory of the device.
        precision: What is computed in: `no` (float32), `bf16` or `fp16`. Trained weights stay in float32,
            but for `adamw-bf16`.
        caption_dropout: Share of captions that are replaced by the empty one, which guidance needs when sampling.
        save_every: Steps from one checkpoint to the next. 0 keeps one at the end alone.
        keep_last: Newest checkpoints that are kept; older ones are removed once a new one is whole. 0 keeps all.
        keep_every: Checkpoints whose step is a multiple of this stay, however old they are. 0 keeps none of them.
        max_skipped: Steps in a row that may be skipped since their loss or gradient was not finite. One more ends the
            run.
    """

    steps: int = field(default=1000, validator=whole(1))
    batch_size: int = field(default=1, validator=whole(1))
    accumulation: int = field(default=1, validator=whole(1))
    clip: float = field(default=1.0, validator=number(0))
    gradient_checkpointing: bool = field(default=False, validator=flag())
    activation_offload: bool = field(default=False, validator=flag())
    precision: str = field(default="no", validator=one_of(*PRECISIONS))
    caption_dropout: float = field(default=0.1, validator=number(0, 1))
    save_every: int = field(default=500, validator=whole(0))
    keep_last: int = field(default=2, validator=whole(0))
    keep_every: int = field(default=0, validator=whole(0))
    max_skipped: int = field(default=10, validator=whole(0))


@frozen
class AdapterSettings:
    """A low-rank adapter (LoRA), trained in place of the model's own weights, which stay as they are.

    Args:
        rank: Columns of each of the adapter's matrices. A higher rank can learn more, and takes more memory and disk.
        alpha: The adapter's changes count alpha / rank. Left out, it is the rank, so that they count 1.
        targets: Ends of the names of the layers that get an adapter. Left out, these are the attention projections.
        dropout: Share of a layer's input that is hidden from its adapter while training.
        quantize: Holds the weights under the adapter in fewer bits (QLoRA): `int8`, `float8` or `nf4`. Left out, they
            are held in what is computed in.

    Source: Hu et al. 2021, arXiv 2106.09685.
    """

    rank: int = field(default=16, validator=whole(1))
    alpha: float | None = field(default=None, validator=optional(number(0, above=True)))
    targets: tuple[str, ...] | None = field(default=None, converter=as_tuple, validator=optional(names()))
    dropout: float = field(default=0.0, validator=number(0, 1, below=True))
    quantize: str | None = field(default=None, validator=optional(one_of(*QUANTIZATIONS)))


@frozen
class RunConfig:
    """Everything that defines a run.

    Args:
        model: Model to fine-tune: a registered checkpoint, a folder in the diffusers layout, or a Hub id.
        dataset: Pictures and captions to train on.
        output_dir: Folder of the run. It must not exist, be empty, or hold the beginning of this very run, unless the
            run is resumed.
        loss: What training makes small.
        seed: Number that decides crops, noise, noise levels and dropped captions.
        revision: Branch, tag or commit of a Hub id. Left out, it is the newest.
        variant: Which of a model's weight files are read, such as `fp16`. Left out, those without a variant.
        transformer: File, folder or Hub id whose denoiser replaces that of the model. Left out, it is the model's own.
        backbone: Options of the model's backbone, such as `backbone.downscale = 16`.
        data: How pictures are resized and cut.
        flow: Which noise levels are trained.
        optimizer: How gradients change the weights.
        schedule: How the learning rate changes.
        training: The loop.
        adapter: Train a low-rank adapter (LoRA) in place of the model's weights; None trains the weights.
        parallel: How the processes of a launch share the run.
        ema: Keep a moving average of the trained weights; None keeps none.
        validation: Look at the model while it trains; None does not.
        tracking: Where the figures of the run go besides its folder.
    """

    model: str = field(validator=text())
    dataset: Component
    output_dir: str = field(validator=text())
    loss: Component = Component("mse")
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
    parallel: ParallelSettings = field(factory=ParallelSettings)
    ema: EMASettings | None = None
    validation: ValidationSettings | None = None
    tracking: TrackingSettings = field(factory=TrackingSettings)
