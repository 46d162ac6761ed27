"""The frozen values that pass between the protocols of `d4k.protocols`, whose legend of shapes holds here, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from attrs import Factory, field, frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Caption",
    "Conditioning",
    "Density",
    "FlowStep",
    "LatentSpec",
    "Limit",
    "Placement",
    "Preset",
    "Sample",
    "SamplingDefaults",
    "Score",
    "Weighting",
]

Density: TypeAlias = Literal["uniform", "logit-normal", "mode", "beta"]
"""How training samples noise levels; see `d4k.flow.sample_sigma`."""

Weighting: TypeAlias = Literal["none", "sigma-sqrt", "cosmap"]
"""How the loss of a sample is weighted by its noise level; see `d4k.flow.sigma_weight`."""


@frozen(eq=False)
class FlowStep:
    """One step of rectified flow, as a loss sees it.

    Args:
        clean: the latent of the picture, (B, C, h, w).
        noise: standard normal noise of the same shape.
        sigma: noise level of each sample, (B,), in [0, 1].
        noisy: `(1 - sigma) * clean + sigma * noise`; computed when left out.

    Source: SD3, Esser et al. 2024, arXiv 2403.03206, section 2.
    """

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    noisy: Tensor = Factory(lambda self: _mix(self.clean, self.noise, self.sigma), takes_self=True)

    @property
    def velocity(self) -> Tensor:
        """What the model should predict: `noise - clean`, (B, C, h, w)."""
        return self.noise - self.clean


def _mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    level = sigma.reshape(-1, 1, 1, 1)
    return (1 - level) * clean + level * noise


@frozen
class Sample:
    """One picture of a dataset, not yet opened.

    Args:
        id: unique within its dataset; readable in an error message.
        caption: what the picture shows.
        source: a path, or a callable that opens a binary stream.
        size: width and height in pixels, upright, where they are known without opening the picture.
    """

    id: str
    caption: str
    source: Path | Callable[[], BinaryIO]
    size: tuple[int, int] | None = None


@frozen
class Caption:
    """What a captioner said of a picture.

    Args:
        text: the caption; empty where there is none.
        refused: whether the captioner would not describe the picture.
        reason: why there is no caption, in words; empty where there is one.
        tokens_in: that were read, of picture and instruction; 0 where they are not counted.
        tokens_out: that were written, likewise.
        model: which answered, by its own name; empty where it has none.
        cost: of the answer in dollars; None where it is not known.
    """

    text: str
    refused: bool = False
    reason: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    model: str = ""
    cost: float | None = None

    @property
    def usable(self) -> bool:
        """Whether the text may be trained on: it is not empty, and not the words of a refusal.

        >>> Caption("a cat").usable, Caption(" ").usable, Caption("I cannot.", refused=True).usable
        (True, False, False)
        """
        return not self.refused and bool(self.text.strip())


@frozen
class Limit:
    """Where a filter draws the line for one of its figures.

    Args:
        figure: name of the figure.
        option: field of the filter that sets the limit.
        least: the smallest figure that may stay; None for no such limit.
        most: the largest figure that may stay; None for no such limit.
    """

    figure: str
    option: str
    least: float | None = None
    most: float | None = None

    def reason(self, value: float) -> str | None:
        """Why a picture with this figure is rejected, or None where it may stay; NaN is no figure, and stays.

        >>> Limit("sharpness", "min_sharpness", least=2.0).reason(1.234)
        'sharpness 1.23, at least 2'
        """
        name = self.figure.replace("_", " ")
        if self.least is not None and value < self.least:
            return f"{name} {value:.3g}, at least {self.least:g}"
        if self.most is not None and value > self.most:
            return f"{name} {value:.3g}, at most {self.most:g}"
        return None


@frozen
class Score:
    """What a metric says of a set of pictures.

    Args:
        metric: registered name, e.g. `"glcm"`.
        value: the figure.
        unit: e.g. `"bits"`, empty for a plain number.
        count: how many pictures it rests on.
        higher_is_better: direction; None where neither is better.
        settings: the options that produced it.
        details: further figures of the same measurement, by name.
        interval: lower and upper end of the 95 % bootstrap interval over pictures; None where there is none.
        detail_intervals: likewise of the details, by name.
        references: how many reference pictures it rests on.
        remarks: what a reader of the figure must know, a sentence each.
        versions: of the packages that computed it.
    """

    metric: str
    value: float
    unit: str
    count: int
    higher_is_better: bool | None
    settings: Mapping[str, Any] = field(factory=dict)
    details: Mapping[str, float] = field(factory=dict)
    interval: tuple[float, float] | None = None
    detail_intervals: Mapping[str, tuple[float, float]] = field(factory=dict)
    references: int = 0
    remarks: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(factory=dict)


@frozen
class LatentSpec:
    """The latent space of a backbone.

    Args:
        channels: how many there are, C in the shapes.
        downscale: pixels a latent row or column stands for (8, 16, 32).
        patch: latent rows or columns that make one token side.
        max_size: longest side in pixels that the positions cover at this `downscale`; None where there is no limit.
        downscales: what the backbone option `downscale` may be, where there is one.
        beyond: what covers sides longer than `max_size`, as the end of a sentence that begins with "choose", such as
            "the backbone option positions='interpolate'"; empty where nothing does.
    """

    channels: int
    downscale: int
    patch: int
    max_size: int | None = None
    downscales: tuple[int, ...] = ()
    beyond: str = ""

    @property
    def granularity(self) -> int:
        """Width and height must be multiples of this many pixels."""
        return self.downscale * self.patch

    def tokens(self, height: int, width: int) -> int:
        """The number of tokens of an image of `height` x `width` pixels.

        >>> LatentSpec(channels=16, downscale=8, patch=2).tokens(1024, 1024)
        4096
        """
        return (height // self.granularity) * (width // self.granularity)


@frozen
class SamplingDefaults:
    """What a loaded model samples with when the user does not say; None leaves it to the backbone's presets.

    Args:
        size: width and height in pixels, at the `downscale` in use.
        steps: steps of the scheduler.
        guidance: scale of the guidance.
        embedded_guidance: what training uses when it is not told otherwise; None where guidance is no input of the
            denoiser.
    """

    size: int
    steps: int | None = None
    guidance: float | None = None
    embedded_guidance: float | None = None


RESTART = 0.7
"""Noise level that a stage begins at where neither the user, the model nor a preset says it."""

UPSCALER = "lanczos"
"""Registered name of the upscaler that enlarges pictures where no other is named."""


@frozen
class Preset:
    """What a backbone samples with at some size; registered with the backbone, the nearest size counts.

    Args:
        size: pixels a side of a square image.
        steps: steps of the scheduler.
        guidance: scale of the guidance.
        shift: moves noise levels towards 1; None leaves it to the scheduler of the checkpoint.
        downscale: pixels a latent row stands for where this holds; None is any. A preset of the downscale in use is
            preferred to a nearer size.
        restart: noise level in (0, 1] that a stage of this size begins at, where it begins with a smaller picture; None
            is 0.7.

    Source of the shift: SD3, Esser et al. 2024, arXiv 2403.03206, section 5.3.2.
    """

    size: int
    steps: int
    guidance: float
    shift: float | None = None
    downscale: int | None = None
    restart: float | None = None


@frozen
class Placement:
    """How the weights of a model are read, and where they are held.

    Args:
        device: torch device that computes; "meta" makes the model's shapes without reading or holding weights.
        dtype: torch dtype of the weights.
        revision: of a Hub id: branch, tag or commit.
        variant: of the weight files, such as "fp16".
        transformer: a single file, a folder or a Hub id, whose denoiser replaces that of the model.
        offload: "model" or "group" rests weights in CPU memory, "disk" in files, until they are computed with.
        quantize: such as "int8" or "nf4": hold the denoiser's weights in fewer bits.
        memory_gb: what the autoencoder may use beside its weights, in 10^9 bytes; None measures what is free. A
            backbone keeps it, and hands it on when it encodes and decodes.
    """

    device: torch.device
    dtype: torch.dtype
    revision: str | None = None
    variant: str | None = None
    transformer: str | None = None
    offload: str | None = None
    quantize: str | None = None
    memory_gb: float | None = None


@frozen(eq=False)
class Conditioning:
    """Encoded prompts: named tensors, each with the batch first. Only the backbone that made it reads the names."""

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        """The number of prompts, B."""
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Conditioning:
        """The prompts at `rows`, as a Conditioning."""
        return Conditioning({name: tensor[rows] for name, tensor in self.tensors.items()})

    def to(self, *, device: Any = None, dtype: torch.dtype | None = None) -> Conditioning:
        """A copy on `device`, floating-point tensors in `dtype`."""
        return Conditioning(
            {
                name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
                for name, tensor in self.tensors.items()
            }
        )
