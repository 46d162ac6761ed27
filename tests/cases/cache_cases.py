"""A model whose latents and text come from weights, what it has encoded, and fills that other processes run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from attrs import define, field
from PIL import Image
from torch import Tensor, nn

from d4k import Conditioning, LatentSpec
from d4k.autoencoder import Posterior
from d4k.datasets import FolderDataset
from d4k.images import Crop
from d4k.store import store
from d4k.training.data.cache import CacheSettings, Filled, fill
from d4k.training.data.source import View

SIDE = 16


@define(slots=False, eq=False)
class Model:
    """What the cache asks of a backbone: a posterior and text that each depend on one weight, and a memory.

    Its "autoencoder" rearranges pixels and scales them; its "text encoder" hashes captions and scales the digits.
    """

    seed: int = field(default=0, kw_only=True)
    tokens: int = field(default=7, kw_only=True)
    trainable: nn.Module = field(init=False)
    vae: nn.Module = field(init=False)
    text_encoder: nn.Module = field(init=False)
    pictures: list[Tensor] = field(init=False, factory=list)
    captions: list[str] = field(init=False, factory=list)
    teller: Connection | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.trainable, self.vae, self.text_encoder = (nn.Linear(1, 1) for _ in range(3))
        weights = {self.trainable: float(self.seed), self.vae: 0.7, self.text_encoder: 0.3}
        for module, value in weights.items():
            for parameter in module.parameters():
                nn.init.constant_(parameter, value)

    @property
    def latent(self) -> LatentSpec:
        return LatentSpec(channels=12, downscale=2, patch=2)

    @property
    def components(self) -> dict[str, nn.Module]:
        return {"denoiser": self.trainable, "vae": self.vae, "text_encoder": self.text_encoder}

    @property
    def trained_options(self) -> dict[str, Any]:
        return {"text_tokens": self.tokens}

    def encode_text(self, prompts: Sequence[str], negative: str | None = None) -> Conditioning:
        self.captions += prompts
        self._tell()
        digits = [list(hashlib.sha256(prompt.encode()).digest()[:6]) for prompt in prompts]
        return Conditioning({"text": torch.tensor(digits).float() * self.text_encoder.weight.item()})

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.encode_posterior(pixels).mean

    def encode_posterior(self, pixels: Tensor) -> Posterior:
        self.pictures += pixels
        self._tell()
        mean = nn.functional.pixel_unshuffle(pixels, 2) * self.vae.weight.item()
        return Posterior(mean, mean / 3 - 2)

    def _tell(self) -> None:
        if self.teller is not None:
            self.teller.send_bytes(b".")


def fill_folder(model: Any, photos: Path, cache: Path, side: int = SIDE, **settings: Any) -> Filled:
    """Fill a cache with all pictures of a folder, cut to a square of their middle, and their captions."""
    dataset = FolderDataset(photos)
    views = [View(index, Crop(side, side)) for index in range(len(dataset))]
    captions = [dataset[index].caption for index in range(len(dataset))]
    return fill(model, dataset, views, [*captions, ""], cache, CacheSettings(**settings))


def fill_and_tell(photos: Path, cache: Path, teller: Connection) -> None:
    """What a process does that is killed: many small shards, and a sign for each thing that is encoded."""
    torch.set_num_threads(1)
    store.FLUSH_BYTES = 400
    model = Model()
    model.teller = teller
    fill_folder(model, photos, cache)
    teller.close()


def fill_apart(photos: Path, cache: Path, teller: Connection) -> None:
    """One of several processes that fill one cache without knowing of each other."""
    torch.set_num_threads(1)
    store.FLUSH_BYTES = 400
    filled = fill_folder(Model(), photos, cache)
    teller.send((filled.encoded, filled.texts_encoded))


def fill_together(photos: Path, cache: Path, meeting: Path, rank: int, teller: Connection, written: Any = None) -> None:
    """One of two processes of a launch that fill one cache.

    With an event the second looks what is missing when the first has written its share of the latents.
    """
    torch.set_num_threads(1)
    if written is not None:
        _look_late(rank, written)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    model = Model()
    filled = fill_folder(model, photos, cache)
    dist.destroy_process_group()
    teller.send((len(model.pictures), model.captions, filled.encoded, filled.texts_encoded, filled.pictures))


def _look_late(rank: int, written: Any) -> None:
    missing, leave = store.Store.missing, store.Writer.__exit__

    def late(self: Any, keys: Any) -> list[str]:
        written.wait()
        return missing(self, keys)

    def told(self: Any, *error: Any) -> None:
        leave(self, *error)
        written.set()

    if rank == 0:
        store.Writer.__exit__ = told  # type: ignore[method-assign]
    else:
        store.Store.missing = late  # type: ignore[method-assign]


def fill_and_kill(processes: Any, photos: Path, cache: Path, moment: int) -> None:
    """Kill a process that fills a cache, when it has begun to encode its `moment`-th thing."""
    listener, teller = processes.Pipe()
    process = processes.Process(target=fill_and_tell, args=(photos, cache, teller))
    process.start()
    teller.close()
    try:
        for _ in range(moment):
            listener.recv_bytes()
    except EOFError:
        pass  # it was faster
    process.kill()
    process.join()


def picture_folder(folder: Path, count: int) -> Path:
    """A folder of different pictures `00.png`... with captions."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"picture {number}")
    return folder
