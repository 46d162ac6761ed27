"""What d4k is made of: five protocols, and the frozen values that pass between them.

Read this page and you know the system. Legend of the shapes:

    B batch · C latent channels · H W pixels · h w latent rows and columns
    N rows of pictures · M rows of reference pictures · D numbers in a row

Pixels are RGB. In flight through a model they are float in [-1, 1]; in a metric they are uint8. `sigma` is the noise
level in [0, 1]: 0 is the picture, 1 is noise (Liu et al., "Flow Straight and Fast", arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, TypeAlias, runtime_checkable

from attrs import Factory, field, frozen

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "Backbone",
    "Conditioning",
    "Dataset",
    "Density",
    "FlowStep",
    "LatentSpec",
    "Loss",
    "Metric",
    "Need",
    "Placement",
    "Preset",
    "Sample",
    "SamplingDefaults",
    "Score",
    "Upscaler",
    "Weighting",
]

Density: TypeAlias = Literal["uniform", "logit-normal", "mode", "beta"]
"""How training samples noise levels; see `d4k.flow.sample_sigma`."""

Weighting: TypeAlias = Literal["none", "sigma-sqrt", "cosmap"]
"""How the loss of a sample is weighted by its noise level; see `d4k.flow.sigma_weight`."""

Need: TypeAlias = Literal["image", "file", "prompt", "reference", "references"]
"""What a metric may ask for: pixels, the file they came from, the prompt, a reference picture for each picture, or a
set of reference pictures that the whole set is compared with."""


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
        downscales: what the backbone option `downscale` may be, where there is one. The backbone itself scales
            `max_size` with the one in use; errors tell from this what the limit would be with another.
        beyond: what of the backbone covers sides longer than `max_size`, as the end of a sentence that begins with
            "choose", such as "the backbone option positions='interpolate'"; empty where nothing does.
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

    Source of the shift: SD3, Esser et al. 2024, arXiv 2403.03206, section 5.3.2.
    """

    size: int
    steps: int
    guidance: float
    shift: float | None = None
    downscale: int | None = None


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


@runtime_checkable
class Backbone(Protocol):
    """A latent diffusion model: text encoders, autoencoder, denoiser and scheduler behind one calling convention.

    An implementation is an attrs class whose fields are its options. Its first field is `source`: a local folder in
    the diffusers layout, or a Hub id. Nothing is read before `load`. Beside what is here it may have a method
    `encode_posterior(pixels)`, which returns a `d4k.autoencoder.Posterior`: without one only modes can be trained.
    """

    source: str
    """Folder in the diffusers layout, or Hub id."""

    @property
    def latent(self) -> LatentSpec:
        """The latent space. Known after `load`.

        A backbone with an option `downscale` scales `max_size` with the one in use: the same positions cover twice the
        pixels when a latent row stands for twice as many.
        """

    @property
    def defaults(self) -> SamplingDefaults:
        """The size the model was trained at, and what its checkpoint says of sampling. Known after `load`.

        The backbone scales `size`, too: a model trained at 1024 pixels that is used at twice its `downscale` has as
        many tokens at 2048.
        """

    @property
    def trainable(self) -> torch.nn.Module:
        """The denoiser. Settable, so that it can be wrapped for several processes."""

    @trainable.setter
    def trainable(self, module: torch.nn.Module) -> None: ...

    @property
    def trained_options(self) -> Mapping[str, Any]:
        """The options, with the values in force, that a model fine-tuned now must be sampled with.

        Such as `{"positions": "interpolate", "text_tokens": 256, "downscale": 16}`. Each key is an option of the
        backbone. They are kept beside the trained weights, and given to the backbone that loads them. Known after
        `load`.
        """

    @property
    def components(self) -> Mapping[str, torch.nn.Module]:
        """All models by name: the denoiser, text encoders, and the autoencoder as "vae". Known after `load`."""

    def load(self, placement: Placement) -> None:
        """Read the weights from `source`, as `placement` says, and keep its `memory_gb` for the autoencoder.

        On the device "meta" shapes are made and no weights are read; memory is planned with these.

        Raises:
            CheckpointError: something is missing or unreadable; the message names it.
        """

    def encode_text(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
        """Encode B prompts; with `negative`, also what classifier-free guidance steers away from.

        An empty prompt is encoded as an empty `negative` is: caption dropout trains the one so that guidance can use
        the other. Loaded on the device "meta": tensors of the shapes that the longest prompts have.
        """

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), scaled to about unit variance; deterministic."""

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C, h, w) to pixels (B, 3, H, W), about in [-1, 1]."""

    def velocity(
        self,
        noisy: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        guidance: float | None = None,
        progress: float | None = None,
    ) -> Tensor:
        """Predict `noise - clean`.

        Args:
            noisy: (B, C, h, w), in the dtype of the weights, or float32 where autocast is on.
            sigma: (B,) float32, in [0, 1].
            conditioning: of the B prompts.
            guidance: scale; None is what training uses (no classifier-free guidance, the usual embedded scale).
            progress: how far sampling is, `step / steps` with steps counted from 1, so in (0, 1]; None while training.
                For models that guide part of the schedule only.
        """

    def scheduler(self, steps: int, height: int, width: int, shift: float | None = None) -> Any:
        """A fresh diffusers flow-matching scheduler, its timesteps set for an image of this size in pixels.

        A deterministic solver of any order will do, also one that keeps a history: each batch gets a scheduler of its
        own. It has as many `timesteps` as the model is to be asked, which are more than `steps` with Heun's method,
        and one more of `sigmas`, which end at 0. The model is asked at `timesteps / 1000`, which a scheduler may
        round; the solver steps from each of its `sigmas` to the next. They may lie on any device, and best on the CPU:
        `d4k.backbones.flow_scheduler` leaves them there. `shift` replaces what the checkpoint's configuration says, by
        resolution or not.

        Raises:
            ConfigError: the checkpoint's scheduler cannot be used.
        """

    def save(self, folder: Path) -> None:
        """Write the whole model in the diffusers layout."""


@runtime_checkable
class Loss(Protocol):
    """What fine-tuning minimises."""

    def __call__(self, velocity: Tensor, step: FlowStep) -> Tensor:
        """Compare a predicted velocity (B, C, h, w) with a step. Returns (B,) float32, not reduced over the batch."""


@runtime_checkable
class Dataset(Protocol):
    """Captioned pictures by index, opened late."""

    def __len__(self) -> int:
        """The number of pictures."""

    def __getitem__(self, index: int, /) -> Sample:
        """Picture `index`; IndexError past the end."""


@runtime_checkable
class Metric(Protocol):
    """A measurement of pictures in two halves: a row of numbers for each picture, and a score of many rows.

    An implementation is an attrs class whose fields are its options. Rows are stored, so no picture is observed twice,
    and an interval is a resampling of rows. Beside what is here a metric may have

    - `observation`, a mapping of all plain values that decide what a row is, such as the name and SHA-256 of a network;
      metrics of equal observations share their rows. Without it: the class and every option.
    - `weighted_scores(rows, weights, references=None)`, the scores (R,) float64 of R resamples at once, where row n of
      resample r counts `weights[r, n]` times; weights are (R, N) float64. Without it `score` is called for each.
    - `patch_map(image)`, the score of every patch of one picture (3, H, W) as (rows, columns) float64, and `patch`, the
      pixels a side of a patch; for heat maps.
    - `remarks(count, references)`, sentences that a reader of a score of so many pictures must know.
    """

    @property
    def needs(self) -> frozenset[Need]:
        """What `observe` is called with; `references` is not among its arguments."""

    @property
    def higher_is_better(self) -> bool | None:
        """Direction of the score; None where neither is better."""

    @property
    def unit(self) -> str:
        """Such as `"bits"`; empty for a plain number."""

    def load(self, device: torch.device) -> None:
        """Read the weights of networks and place them; called once before `observe`, and not before `score`.

        Raises:
            CheckpointError: weights cannot be had; the message says which file to put where.
        """

    def observe(self, **inputs: Any) -> Tensor | Sequence[Tensor]:
        """What each of B pictures contributes.

        Args:
            inputs: one keyword for each need, a list of B: `image` and `reference` of uint8 tensors (3, H, W) of any
                size, `file` of paths, `prompt` of strings. Pictures of the set of references come as `image`.

        Returns:
            (B, D) floating point, a row a picture; or B tensors (K, D), where pictures give several rows each. It lies
            on the CPU.

        Raises:
            DataError: a picture cannot be measured, such as one that is too small.
        """

    def score(self, rows: Tensor, references: Tensor | None = None) -> float | Mapping[str, float]:
        """The figure of a set of pictures, or several by name, of which the first is the score.

        Args:
            rows: (N, D), in the order of the pictures.
            references: (M, D), where `needs` holds `references`.

        Raises:
            DataError: there are too few rows.
        """


@runtime_checkable
class Upscaler(Protocol):
    """What enlarges a finished picture."""

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to (B, 3, height, width) in [-1, 1]."""
