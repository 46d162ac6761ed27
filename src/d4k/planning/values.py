"""What is planned, and what comes out: frozen values, all sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from d4k.config import OFFLOADED, OPTIMIZERS, PRECISIONS, STRATEGIES, AdapterSettings, DataSettings, RunConfig
from d4k.errors import ConfigError, UnknownNameError
from d4k.models import DTYPES, QUANTIZERS, ModelRef, training_dtype

__all__ = ["Generation", "Memory", "Part", "Plan", "RunPlan", "of_run"]


@frozen
class Generation:
    """What pictures are to be generated.

    Args:
        width: pixels; None is the size that the model was made for.
        height: likewise.
        batch_size: pictures at a time, at least 1.
        dtype: of the weights: "float32", "bfloat16" or "float16".
        quantize: "int8", "float8" or "nf4" holds the denoiser's linear layers in fewer bits; None does not.

    Raises:
        UnknownNameError: there is no such dtype or quantisation.
        ConfigError: a number is below 1.
    """

    width: int | None = None
    height: int | None = None
    batch_size: int = 1
    dtype: str = "bfloat16"
    quantize: str | None = None

    def __attrs_post_init__(self) -> None:
        _known("dtype", self.dtype, DTYPES)
        _known("quantisation", self.quantize, QUANTIZERS)
        _positive(width=self.width, height=self.height, batch_size=self.batch_size)


@frozen
class RunPlan:
    """What a model is to be trained with, at the size of the pictures that are generated.

    Args:
        batch_size: pictures of one forward pass, on each process; at least 1.
        accumulation: forward passes of one optimizer step; at least 1.
        precision: mixed precision: "no", "bf16" or "fp16".
        adapter: trains an adapter (LoRA); None trains all weights.
        optimizer: one of `d4k.config.OPTIMIZERS`, or `module:Class`.
        dtype: of the weights; None is what `d4k train` loads, see `d4k.models.training_dtype`.
        processes: how many devices share the run; at least 1.
        steps: optimizer steps, which tell how many checkpoints there will be; None does not say.
        save_every: steps between checkpoints; 0 keeps the last one only.
        keep_last: newest checkpoints that are kept; 0 keeps all.
        keep_every: checkpoints whose step is a multiple of this stay; 0 keeps none of them.
        checkpointing: whether activations are computed again in place of being kept; None does not say.
        strategy: "auto", "ddp" or "fsdp2"; "auto" is ddp where there are several processes.
        offload: what rests in CPU memory: "none", "optimizer" or "all".
        activation_offload: whether activations wait in CPU memory for the backward pass.
        ema: where a moving average of the weights is: "same" device, or "cpu"; None has none.
        cached: whether latents and text come from a cache, so that the denoiser alone is there while it is trained.

    Raises:
        UnknownNameError: there is no such precision, optimizer or dtype.
        ConfigError: a number is below 1.
    """

    batch_size: int = 1
    accumulation: int = 1
    precision: str = "bf16"
    adapter: AdapterSettings | None = None
    optimizer: str = "adamw"
    dtype: str | None = None
    processes: int = 1
    steps: int | None = None
    save_every: int = 500
    keep_last: int = 2
    keep_every: int = 0
    checkpointing: bool | None = None
    strategy: str = "auto"
    offload: str = "none"
    activation_offload: bool = False
    ema: str | None = None
    cached: bool = True

    def __attrs_post_init__(self) -> None:
        _known("precision", self.precision, PRECISIONS)
        if ":" not in self.optimizer:
            _known("optimizer", self.optimizer, OPTIMIZERS)
        _known("strategy", self.strategy, STRATEGIES)
        _known("offload", self.offload, OFFLOADED)
        if self.offload == "all" and self.sharing != "fsdp2":
            raise ConfigError("offload 'all' needs the strategy 'fsdp2'")
        _known("dtype", self.dtype, DTYPES)
        _positive(
            batch_size=self.batch_size, accumulation=self.accumulation, processes=self.processes, steps=self.steps
        )

    @property
    def weights(self) -> str:
        """The dtype of the weights: as given, or what `d4k train` loads."""
        adapter = self.adapter is not None
        return self.dtype or training_dtype(self.precision, adapter=adapter, optimizer=self.optimizer)

    @property
    def sharing(self) -> str:
        """How processes share the run: "single", "ddp" or "fsdp2"."""
        if self.strategy == "fsdp2":
            return "fsdp2"
        return "ddp" if self.processes > 1 else "single"


@frozen
class Part:
    """One model of a backbone.

    Args:
        name: such as "transformer".
        parameters: how many numbers it has.
        size: bytes of its weights, in fewer bits where that was asked for.
    """

    name: str
    parameters: int
    size: int


@frozen
class Memory:
    """What a device must hold.

    Args:
        rows: bytes by what they are for; not all of them are held at the same time.
        peaks: bytes that are held at once, at most, by the way of doing it.
        cpu: bytes that are held in CPU memory in place of the device, by what they are for.
    """

    rows: Mapping[str, int]
    peaks: Mapping[str, int]
    cpu: Mapping[str, int] = field(factory=dict)


@frozen
class Plan:
    """What generating takes, and training where it was asked for.

    Args:
        model: the name that was given.
        backbone: registered name.
        settings: what was planned for, defaults included.
        parts: the models that it consists of.
        latent: channels, rows and columns of one picture's latent.
        tokens: of one picture.
        text_tokens: of one prompt.
        flops: floating-point operations of one sampling step of a batch, guidance included.
        training_flops: of one forward and backward pass of a batch; None without training.
        generation: memory of generating.
        training: memory of training, on each process; None without training.
        disk: bytes of the files that are written, by what they are.
    """

    model: str
    backbone: str
    settings: Mapping[str, Any]
    parts: tuple[Part, ...]
    latent: tuple[int, int, int]
    tokens: int
    text_tokens: int
    flops: int
    training_flops: int | None
    generation: Memory
    training: Memory | None
    disk: Mapping[str, int]


def of_run(config: RunConfig, **generation: Any) -> tuple[ModelRef, Generation, RunPlan]:
    """What `plan` takes, of the configuration of a run.

    Args:
        config: of the run.
        generation: fields of `Generation` other than the size, which is that of the run.
    """
    settings = config.training
    ref = ModelRef(
        config.model,
        revision=config.revision,
        variant=config.variant,
        transformer=config.transformer,
        options=config.backbone,
    )
    run = RunPlan(
        batch_size=settings.batch_size,
        accumulation=settings.accumulation,
        precision=settings.precision,
        adapter=config.adapter,
        optimizer=config.optimizer.name,
        steps=settings.steps,
        save_every=settings.save_every,
        keep_last=settings.keep_last,
        keep_every=settings.keep_every,
        checkpointing=settings.gradient_checkpointing,
        strategy=config.parallel.strategy,
        offload=config.parallel.offload,
        activation_offload=settings.activation_offload,
        ema=None if config.ema is None else config.ema.device,
        cached=_cached(config.data),
    )
    return ref, Generation(config.data.width, config.data.height, **generation), run


def _cached(data: DataSettings) -> bool:
    """Whether pictures come from a cache: those that are cut or mirrored anew in every epoch do not."""
    changing = data.crop == "random" or data.flip
    return data.cache != "off" and (data.crops is not None or not changing)


def _known(kind: str, name: str | None, known: Any) -> None:
    if name is not None and name not in known:
        raise UnknownNameError(kind, name, known)


def _positive(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
