"""Where a feed takes latents and text from: encoded when they are asked for, or read from a cache."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, Protocol

from attrs import frozen
from torch import Tensor

from d4k.autoencoder import Posterior
from d4k.errors import ConfigError
from d4k.images import Crop, open_picture, to_float, to_tensor
from d4k.protocols import Backbone, Conditioning, Dataset

__all__ = ["CACHED_CAPTIONS", "CACHED_LATENTS", "Encoding", "Source", "View"]

CACHED_LATENTS = 256
CACHED_CAPTIONS = 64


@frozen
class View:
    """One way to cut one picture: what one latent is made of.

    Args:
        index: of the picture in its dataset.
        crop: what it is cut to, and how.
        seed: decides where it is cut and whether it is mirrored, where `crop` leaves that open; 0 where it does not.
    """

    index: int
    crop: Crop
    seed: int = 0


class Source(Protocol):
    """What a feed asks for latents and text.

    `load` may run in another process, ahead of the step; it must not touch the model. `latent` and `text` run in the
    process that trains.
    """

    def load(self, view: View) -> Any:
        """What `latent` needs of a view: its pixels, or what the cache holds of it.

        Raises:
            DataError: the picture, or its entry in the cache, cannot be read.
        """

    def latent(self, loaded: Any) -> Posterior:
        """The autoencoder's posterior of what was loaded, on the CPU, of one picture: (1, C, h, w)."""

    def text(self, caption: str) -> Conditioning:
        """A caption, encoded, on the CPU."""


class Encoding:
    """Encodes every picture when it is asked for, and keeps the newest in memory.

    Args:
        backbone: loaded.
        dataset: captioned pictures.
        posterior: encode the `mode` of the autoencoder's posterior alone, or all of it, as a `sample` needs.

    Raises:
        ConfigError: a sample is wanted, and the backbone only encodes modes.
    """

    def __init__(self, backbone: Backbone, dataset: Dataset, posterior: Literal["mode", "sample"] = "mode") -> None:
        self.backbone, self.dataset = backbone, dataset
        self.encode_posterior = getattr(backbone, "encode_posterior", None) if posterior == "sample" else None
        if posterior == "sample" and self.encode_posterior is None:
            raise ConfigError(
                "this model's backbone encodes modes only, so that data.posterior = 'sample' cannot be trained: set it "
                "to 'mode'"
            )
        self.text = lru_cache(CACHED_CAPTIONS)(self._text)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs to load pictures: not the model."""
        return {"dataset": self.dataset}

    def load(self, view: View) -> Tensor:
        """The pixels of a view, (3, H, W) uint8."""
        sample = self.dataset[view.index]
        return to_tensor(view.crop(open_picture(sample.source, label=sample.id), view.seed))

    def latent(self, loaded: Tensor) -> Posterior:
        """Encode pixels."""
        pixels = to_float(loaded)[None]
        # on the CPU it may be kept: the memory of a GPU is the model's
        if self.encode_posterior is None:
            return Posterior(self.backbone.encode_image(pixels).cpu())
        found: Posterior = self.encode_posterior(pixels)
        return Posterior(found.mean.cpu(), None if found.log_variance is None else found.log_variance.cpu())

    def _text(self, caption: str) -> Conditioning:
        return self.backbone.encode_text([caption]).to(device="cpu")
