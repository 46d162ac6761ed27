"""Pictures and captions of a dataset as encoded batches, by number."""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from attrs import frozen
from torch import Tensor

from d4k.config import RunConfig
from d4k.errors import DataError
from d4k.flow import sample_sigma
from d4k.images import Crop, picture_size
from d4k.protocols import Backbone, Conditioning, Dataset
from d4k.sampling import check_size
from d4k.seeds import numbered_seed
from d4k.training.data.source import CACHED_LATENTS, Encoding, Source, View

__all__ = ["Batch", "Feed"]


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
        source: of latents and text; None encodes them when they are asked for.
    """

    def __init__(
        self,
        backbone: Backbone,
        dataset: Dataset,
        config: RunConfig,
        device: torch.device,
        source: Source | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise DataError("the dataset is empty: there is nothing to train on")
        self.dataset, self.config, self.device = dataset, config, device
        self.source = source or Encoding(backbone, dataset)
        size = backbone.defaults.size
        data = config.data
        self.crop = Crop(data.height or size, data.width or size, position=data.crop, flip=data.flip)
        check_size(backbone, self.crop.width, self.crop.height)
        self.fixed = data.crop == "center" and not data.flip
        self.latent = lru_cache(CACHED_LATENTS if self.fixed else 0)(self._latent)
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
        generator = torch.Generator().manual_seed(numbered_seed(seed, "noise", number))
        sigma = sample_sigma(
            1,
            density=flow.density,
            mean=flow.mean,
            std=flow.std,
            mode_scale=flow.mode_scale,
            shift=flow.shift if isinstance(flow.shift, float | int) else 1.0,
            generator=generator,
        )
        dropped = torch.rand((), generator=generator).item() < self.config.training.caption_dropout
        clean = self.latent(index, 0 if self.fixed else epoch)
        noise = torch.randn(clean.shape, generator=generator)
        return clean, noise, sigma, self.source.text("" if dropped else self.dataset[index].caption)

    def _latent(self, index: int, epoch: int) -> Tensor:
        sample = self.dataset[index]
        self._note_enlarged(sample.id, picture_size(sample.source))
        view = View(index, self.crop, numbered_seed(self.config.seed, "crop", epoch * len(self.dataset) + index))
        return self.source.latent(self.source.load(view)).mean

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

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(numbered_seed(self.config.seed, "order", epoch))
        return torch.randperm(len(self.dataset), generator=generator).tolist()
