"""What d4k is made of: its protocols. The frozen values that pass between them are in `d4k.values`.

    prompt -> Backbone.encode_text -> Backbone.velocity at each step -> Backbone.decode -> picture
    photograph -> Dataset -> Sample -> Backbone.encode_image -> FlowStep -> Backbone.velocity -> Loss
    pictures -> Metric.observe: rows -> Metric.score -> Score
    photograph -> Filter.measure: figures -> Filter.limits: it is in, or out for a reason
    photograph -> Captioner -> Caption, which a dataset gives with the photograph

Read this page and you know the system. Legend of the shapes:

    B batch · C latent channels · H W pixels · h w latent rows and columns
    N rows of pictures · M rows of reference pictures · D numbers in a row

Pixels are RGB. In flight through a model they are float in [-1, 1]; in a metric they are uint8. `sigma` is the noise
level in [0, 1]: 0 is the picture, 1 is noise (Liu et al., "Flow Straight and Fast", arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from d4k.values import (
    Caption,
    Conditioning,
    Density,
    FlowStep,
    LatentSpec,
    Limit,
    Placement,
    Preset,
    Sample,
    SamplingDefaults,
    Score,
    Weighting,
)

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor

    from d4k.images import Picture

__all__ = [
    "Backbone",
    "Caption",
    "Captioner",
    "Conditioning",
    "Dataset",
    "Density",
    "Filter",
    "FlowStep",
    "LatentSpec",
    "Limit",
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

Need: TypeAlias = Literal["image", "file", "prompt", "reference", "references"]
"""What a metric may ask for: pixels, the file they came from, the prompt, a reference picture for each picture, or a
set of reference pictures that the whole set is compared with."""


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
      resample r counts `weights[r, n]` times; weights are (R, N) float64. Without it `score` is called for each. A
      metric of sets may leave out what a picture has to do with its own copy, such as being its nearest neighbour.
    - `patch_map(image)`, the score of every patch of one picture (3, H, W) as (rows, columns) float64, and `patch`, the
      pixels a side of a patch; for heat maps.
    - `settings`, a mapping of plain values that the score shows as what produced it, such as the digest of weights;
      without it, every option.
    - `packages`, the names of the distributions whose versions the score shows beside the metric's own.
    - `bounds`, the least and the greatest score there can be, such as `(0.0, 1.0)`; intervals end there.
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
    """What enlarges a finished picture.

    An implementation is an attrs class whose fields are its options. It computes on the device of the pixels. Beside
    what is here an upscaler may have

    - `settings`, a mapping of plain values that decide its pictures beside its options, such as the name and SHA-256 of
      a network; recipes keep it. Asking for it reads what the upscaler needs, and raises CheckpointError where that is
      missing, so that it is refused before anything is sampled.
    - `packages`, the names of the distributions whose versions are recorded, too.
    """

    def __call__(self, pixels: Tensor, height: int, width: int) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1] to (B, 3, height, width) in [-1, 1]."""


@runtime_checkable
class Filter(Protocol):
    """What decides whether a photograph belongs into a dataset.

    An implementation is an attrs class whose fields are its options. It works in two halves, so that a limit can be
    moved without decoding a picture again: figures are measured once and stored, and compared with limits later.
    """

    @property
    def figures(self) -> Mapping[str, str]:
        """What is measured: name of each figure, in the form of an identifier -> what it is, with its unit."""

    @property
    def limits(self) -> Sequence[Limit]:
        """Which figures may stay, from the options. A picture is rejected for the first limit that it breaks."""

    def measure(self, picture: Picture) -> Mapping[str, float]:
        """All figures of a picture. They depend on the picture, and on no limit. NaN: it does not apply.

        Raises:
            DataError: the picture cannot be measured, such as one that is too small.
        """


@runtime_checkable
class Captioner(Protocol):
    """What describes a picture in words.

    An implementation is an attrs class whose fields are its options. Keys and passwords are no options: they would be
    kept with every caption. Beside what is here a captioner may have

    - `concurrent`, true where `caption` may be called from several threads at once. Without it the calls come one after
      another.
    - `prices`, dollars for a million tokens read and for a million written, or None where they are not known. With it
      each `Caption` has its `cost`. A captioner without the attribute costs nothing.
    """

    @property
    def identity(self) -> Mapping[str, Any]:
        """The plain values that decide its captions, such as the model, the host and the temperature.

        They are kept with each caption. A picture is not asked about again with an equal identity and instruction.
        Known before `load`.
        """

    def load(self, device: torch.device) -> None:
        """Read the weights of networks and place them, and look for keys; called once, before `caption`.

        Raises:
            CheckpointError: weights cannot be had.
            ConfigError: it cannot work as it is set, for example without a key.
        """

    def caption(self, image: Image, instruction: str) -> Caption:
        """Describe a picture.

        Args:
            image: Pillow picture, mode RGB, upright, in full resolution; it is left as it is.
            instruction: what to say of it, to whoever describes.

        Returns:
            The caption. A refusal and an empty answer are captions, too: they have a `reason`.

        Raises:
            DataError: this picture cannot be captioned now; the next one is tried.
            D4KError: any other one says that no picture can be captioned, such as a key that is not valid.
        """
