"""What the metrics share: a network that is placed once, and rows of its features."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from attrs import define, field
from attrs.validators import in_, instance_of
from torch import Tensor, nn

from d4k import DataError
from d4k_fid.networks import INPUT, features, placed
from d4k_fid.pixels import Fit, clean, published
from d4k_fid.weights import WEIGHTS, find_weights, sha256_of

__all__ = ["SIZE", "FeatureMetric", "ResizedMetric", "pictures_of"]

SIZE = 2048
"""Pixels a side to which pictures are resized as published: those of the paper's FID."""


@define(eq=False, slots=False, kw_only=True)
class FeatureMetric:
    """What all share: sets of pictures are compared by the features that a network has for them.

    Args:
        weights: a local file of the network's weights; None takes torch hub's, which is downloaded where it is missing.
        sha256: that `weights` must have.
    """

    needs: ClassVar[frozenset[Literal["image", "references"]]] = frozenset({"image", "references"})
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ("torch-fidelity", "torchvision")
    fewest: ClassVar[int] = 2

    network: str = field(default="inception-v3-compat", init=False)
    weights: str | None = None
    sha256: str | None = field(default=None)
    _placed: nn.Module | None = field(default=None, init=False, repr=False)

    @sha256.validator
    def _check_sha256(self, _: Any, value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"sha256 must be 64 hexadecimal digits in lower case, or none, got {value!r}")
        if self.weights is None:
            raise ValueError("sha256 belongs to a file of your own: name it with weights")

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row: the network, the SHA-256 of its weights, and what is done to a picture."""
        return {"rows": "features", "version": 1, **self._features()}

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the score shows."""
        return self._features()

    def load(self, device: torch.device) -> None:
        """Place the network, once for all metrics that share it.

        Raises:
            CheckpointError: its weights cannot be had, or are others than they should be.
        """
        self._placed = placed(self.network, self._file(), device)

    def observe(self, image: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """The features of each picture: (B, D) float32.

        Raises:
            DataError: a picture is no uint8 (3, H, W).
        """
        return features(self._loaded(), [self._prepare(picture) for picture in pictures_of(image)])

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:
        """The distance of the rows from those of the references, or their share.

        Raises:
            DataError: there are too few rows.
        """
        return float(self.weighted_scores(rows, torch.ones(1, len(rows), dtype=torch.float64), references)[0])

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:
        """The scores of resamples, (R,) float64.

        Raises:
            DataError: there are too few rows.
        """
        count = 0 if references is None else len(references)
        if references is None or min(len(rows), count) < self.fewest:
            raise DataError(
                f"there are {len(rows)} rows of pictures and {count} of references; {type(self).__name__} needs "
                f"{self.fewest} of each or more"
            )
        return self._scores(rows, weights, references)

    def remarks(self, count: int, references: int) -> Sequence[str]:  # noqa: ARG002
        """What a reader must know."""
        if self._digest() == WEIGHTS[self.network].sha256:
            return ()
        return ("The network's weights are not the published ones: the score compares only with those of this file.",)

    def _scores(self, rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
        raise NotImplementedError

    def _features(self) -> Mapping[str, Any]:
        return {"network": self.network, "weights": self._digest(), **self._input()}

    def _input(self) -> Mapping[str, Any]:
        """What is done to a picture, as plain values."""
        raise NotImplementedError

    def _prepare(self, picture: Tensor) -> Tensor:
        """What the network sees of a picture."""
        raise NotImplementedError

    def _file(self) -> Path:
        return find_weights(self.network, self.weights, self.sha256)

    def _digest(self) -> str:
        """The SHA-256 of the weights; scoring rows that are there needs no file of them, unless it is one's own."""
        if self.weights is None:
            return WEIGHTS[self.network].sha256
        return self.sha256 or sha256_of(self._file())

    def _loaded(self) -> nn.Module:
        if self._placed is None:
            raise RuntimeError(f"load of {type(self).__name__} must be called before observe")
        return self._placed


@define(eq=False, slots=False, kw_only=True)
class ResizedMetric(FeatureMetric):
    """A metric that sees each picture whole.

    Args:
        preprocessing: "published" resizes to `size` in 8 bits and then as the network does, without antialiasing;
            "clean" resizes in one step, antialiased (Pillow's bicubic).
        fit: "crop" cuts the middle square out, "squash" squeezes the whole picture into a square.
        size: of "published", pixels a side in between; None is 2048.
        antialias: of "published", whether the second step is antialiased, as torchmetrics does it since July 2025.
    """

    preprocessing: Literal["published", "clean"] = field(default="published", validator=in_(("published", "clean")))
    fit: Fit = field(default="crop", validator=in_(("crop", "squash")))
    size: int | None = field(default=None)
    antialias: bool = field(default=False, validator=instance_of(bool))

    @size.validator
    def _check_size(self, _: Any, value: Any) -> None:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"size must be a whole number of pixels of at least 1, or none, got {value!r}")

    def __attrs_post_init__(self) -> None:
        """Refuse what would be ignored."""
        if self.preprocessing == "clean" and (self.size is not None or self.antialias):
            raise ValueError("size and antialias belong to preprocessing 'published'; 'clean' resizes in one step")

    def _input(self) -> Mapping[str, Any]:
        said: dict[str, Any] = {"preprocessing": self.preprocessing, "fit": self.fit}
        if self.preprocessing == "published":
            said |= {"size": self.size or SIZE, "antialias": self.antialias}
        return said

    def _prepare(self, picture: Tensor) -> Tensor:
        side = INPUT[self.network]
        if self.preprocessing == "clean":
            return clean(picture, side, fit=self.fit)
        return published(picture, side, size=self.size or SIZE, fit=self.fit, antialias=self.antialias)


def pictures_of(image: Sequence[Tensor]) -> Sequence[Tensor]:
    """The pictures as they are.

    Raises:
        DataError: one is no uint8 (3, H, W).
    """
    for picture in image:
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
            raise DataError(f"pictures must be uint8 (3, H, W), got {picture.dtype} {tuple(picture.shape)}")
    return image
