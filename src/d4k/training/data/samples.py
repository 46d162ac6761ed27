"""Pictures and captions of a dataset as encoded batches, by number."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from functools import lru_cache
from itertools import chain, islice
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from d4k.autoencoder import Posterior
from d4k.config import RunConfig
from d4k.images import Crop
from d4k.protocols import Conditioning
from d4k.seeds import numbered_seed
from d4k.training.data.order import Order
from d4k.training.data.pictures import Chosen
from d4k.training.data.prefetch import load_ahead
from d4k.training.data.source import CACHED_LATENTS, Encoding, Source, View
from d4k.training.data.views import is_fixed, trained_view
from d4k.training.noise import draw_sigma

__all__ = ["Batch", "Feed"]

HANDFUL = 8
"""Batches for which no worker is started."""


@frozen(eq=False)
class Batch:
    """What one forward pass is given.

    Args:
        clean: latents (B, C, h, w).
        noise: of the same shape.
        sigma: (B,).
        conditioning: of the B captions.
        ids: of the B pictures.
        size: width and height in pixels that they are cut to.
        number: of the batch, counted over all processes.
    """

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    conditioning: Conditioning
    ids: tuple[str, ...]
    size: tuple[int, int]
    number: int


class Feed:
    """Pictures and captions of a dataset as encoded batches, by number.

    Args:
        source: of latents and text.
        chosen: pictures to train on.
        config: of the run.
        device: where the batches go.
        rank: number of this process among those of the launch.
        world: how many there are.
        shift_at: the shift of the noise levels at a width and a height in pixels; None takes `flow.shift` where that is
            a number, and else 1.

    Attributes:
        order: of the batches.
        crop: the largest that a picture is cut to.
    """

    def __init__(
        self,
        source: Source,
        chosen: Chosen,
        config: RunConfig,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        shift_at: Callable[[int, int], float] | None = None,
    ) -> None:
        self.source, self.chosen, self.config, self.device = source, chosen, config, device
        self.rank, self.world = rank, world
        self.shift_at = shift_at or self._plain_shift
        self.order = Order([bucket.pictures for bucket in chosen.buckets], config.seed, config.training.batch_size)
        width, height = chosen.largest
        self.crop = Crop(height, width, position=config.data.crop, flip=config.data.flip)
        # a cache is read as fast as memory; what has to be encoded is kept where it will be the same again
        self.keeps = isinstance(source, Encoding) and is_fixed(config.data)
        self.kept = lru_cache(CACHED_LATENTS)(self._encoded)

    def batch(self, micro: int) -> Batch:
        """The batch that this process takes as its `micro`-th, counted from 0; the same on every call."""
        encoded = self.kept if self.keeps else self._encoded
        return self._batch(micro, [encoded(view) for view in self._views(micro)])

    def batches(self, first: int, last: int) -> Generator[Batch, None, None]:
        """The batches `first` to `last - 1` of this process, loaded ahead by `data.workers` processes.

        Each is equal to what `batch` returns. Close the iterator when it is left early, as `contextlib.closing` does:
        that ends the workers.

        Raises:
            DataError: a picture, or its entry in the cache, cannot be read.
            D4KError: a worker was killed.
        """
        in_memory = self.keeps and self.chosen.count <= CACHED_LATENTS
        if self.config.data.workers == 0 or last - first <= HANDFUL or in_memory:
            yield from map(self.batch, range(first, last))
            return
        size = self.config.training.batch_size
        views = chain.from_iterable(map(self._views, range(first, last)))
        with closing(load_ahead(self.source, views, self.config.data.workers, size)) as loaded:
            for micro in range(first, last):
                yield self._batch(micro, [self.source.latent(one) for one in islice(loaded, size)])

    def _views(self, micro: int) -> list[View]:
        """How the pictures of a batch are cut."""
        turn = self.order.turn(micro * self.world + self.rank)
        bucket = self.chosen.buckets[turn.bucket]
        pairs = zip(turn.pictures, turn.epochs, strict=True)
        return [trained_view(self.chosen, bucket, index, epoch, self.config) for index, epoch in pairs]

    def _encoded(self, view: View) -> Posterior:
        return self.source.latent(self.source.load(view))

    def _batch(self, micro: int, latents: list[Posterior]) -> Batch:
        number = micro * self.world + self.rank
        turn = self.order.turn(number)
        bucket, first = self.chosen.buckets[turn.bucket], number * len(latents)
        samples = [self.chosen.dataset[index] for index in turn.pictures]
        shift = self.shift_at(bucket.width, bucket.height)
        items = [
            self._item(first + place, latent, sample.caption, shift)
            for place, (latent, sample) in enumerate(zip(latents, samples, strict=True))
        ]
        clean, noise, sigma, texts = zip(*items, strict=True)
        names = texts[0].tensors
        joined = Conditioning({name: torch.cat([text.tensors[name] for text in texts]) for name in names})
        return Batch(
            torch.cat(clean).to(self.device),
            torch.cat(noise).to(self.device),
            torch.cat(sigma).to(self.device),
            joined.to(device=self.device),
            tuple(sample.id for sample in samples),
            bucket.size,
            number,
        )

    def _item(
        self, number: int, latent: Posterior, caption: str, shift: float
    ) -> tuple[Tensor, Tensor, Tensor, Conditioning]:
        """Sample `number` of the run: clean latent, noise, noise level and text."""
        generator = self._generator("noise", number)
        sigma = draw_sigma(self.config.flow, shift, generator)
        dropped = torch.rand((), generator=generator).item() < self.config.training.caption_dropout
        clean = self._clean(number, latent)
        noise = torch.randn(clean.shape, generator=generator)
        return clean, noise, sigma, self.source.text("" if dropped else caption)

    def _clean(self, number: int, latent: Posterior) -> Tensor:
        """The latent that is trained, (1, C, h, w) float32: the posterior's mode, or the sample of this number."""
        mean = latent.mean.to(torch.float32)
        if self.config.data.posterior == "mode" or latent.log_variance is None:
            return mean
        noise = torch.randn(mean.shape, generator=self._generator("posterior", number))
        return Posterior(mean, latent.log_variance.to(torch.float32)).sample(noise)

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        return torch.Generator().manual_seed(numbered_seed(self.config.seed, purpose, number))

    def _plain_shift(self, width: int, height: int) -> float:  # noqa: ARG002 - the same at every size
        shift: Any = self.config.flow.shift
        return float(shift) if isinstance(shift, float | int) else 1.0
