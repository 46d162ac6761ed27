"""Latents and text of a run, read from the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attrs import frozen
from torch import Tensor

from d4k.autoencoder import Posterior
from d4k.errors import DataError
from d4k.protocols import Conditioning
from d4k.store import FileFacts, Store
from d4k.training.data.cache.keys import Keys
from d4k.training.data.source import CACHED_CAPTIONS, View

__all__ = ["CachedSource", "Original"]

MEAN, LOG_VARIANCE = "mean", "log_variance"


@frozen
class Original:
    """A picture of the dataset, as the cache knows it.

    Args:
        id: of the picture.
        facts: digest of its file, and its size.
    """

    id: str
    facts: FileFacts


class CachedSource:
    """A `d4k.training.data.source.Source` that reads from a cache which holds everything that is asked for.

    The pictures' files are not touched any more, and no model is needed. It can be sent to another process.

    Args:
        store: filled.
        keys: of the model that filled it.
        originals: the pictures by their number in the dataset.
    """

    def __init__(self, store: Store, keys: Keys, originals: Mapping[int, Original]) -> None:
        self.store, self.keys, self.originals = store, keys, originals
        self.text = lru_cache(CACHED_CAPTIONS)(self._text)

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "keys": self.keys, "originals": self.originals}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def contents(self) -> str:
        """A digest of the files of all pictures, in their order."""
        files = [[index, original.facts.digest] for index, original in sorted(self.originals.items())]
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    def key(self, view: View) -> str:
        """The key of a view's latent.

        Raises:
            DataError: the picture is none of those that the cache was filled with.
        """
        original = self.originals.get(view.index)
        if original is None:
            raise DataError(f"picture number {view.index} of the dataset is not in cache {self.store.folder}")
        return view_key(self.keys, view, original.facts)

    def load(self, view: View) -> dict[str, Tensor]:
        """What the cache holds of a view, checked.

        Raises:
            DataError: its entry is missing or damaged.
        """
        return self.store.read(self.key(view), f"picture '{self.originals[view.index].id}'")

    def latent(self, loaded: Mapping[str, Tensor]) -> Posterior:
        """The posterior of what was loaded."""
        return Posterior(loaded[MEAN], loaded.get(LOG_VARIANCE))

    def _text(self, caption: str) -> Conditioning:
        shown = caption if len(caption) <= 60 else f"{caption[:60]}..."
        return Conditioning(self.store.read(self.keys.text(caption), f"the caption {shown!r}"))


def view_key(keys: Keys, view: View, facts: FileFacts) -> str:
    """The key of the latent of a view of a picture."""
    crop = view.crop
    return keys.latent(facts.digest, crop.cut((facts.width, facts.height), view.seed), crop.width, crop.height)
