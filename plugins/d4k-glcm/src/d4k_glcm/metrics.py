"""Three measures of grey-level co-occurrence. No reference picture and no network is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from attrs import define, field
from attrs.validators import in_, instance_of
from torch import Tensor

from d4k import DataError
from d4k_glcm import tensors
from d4k_glcm.checks import are_distances, check_pictures, is_levels, to_distances
from d4k_glcm.cooccurrence import (
    PATCH,
    PROPERTIES,
    PUBLISHED,
    Form,
    cut_patches,
    grey_levels,
    patch_entropies,
    patch_properties,
)

__all__ = ["GLCMEntropy", "GLCMProperty", "GLCMScore"]

Property = Literal["contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM"]


@define
class Cooccurrence:
    """What the metrics of grey-level co-occurrence share: their options, patches and means.

    A row holds all that is measured of a picture, each the mean over its patches; a metric reads one column.
    """

    levels: int = field(default=PUBLISHED.levels, validator=is_levels)
    distances: tuple[int, ...] = field(default=PUBLISHED.distances, converter=to_distances, validator=are_distances)
    symmetric: bool = field(default=PUBLISHED.symmetric, validator=instance_of(bool))
    _device: torch.device = field(init=False, default=torch.device("cpu"), repr=False, eq=False)

    needs: ClassVar[frozenset[Literal["image"]]] = frozenset({"image"})
    patch: ClassVar[int] = PATCH
    kind: ClassVar[str]

    @property
    def form(self) -> Form:
        """The matrices that the options describe."""
        return Form(self.levels, self.distances, self.symmetric)

    @property
    def column(self) -> int:
        """Of a row, where the metric's own number lies."""
        raise NotImplementedError

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row; metrics of one kind and form share theirs."""
        return {
            "rows": self.kind,
            "version": 1,
            "levels": self.levels,
            "distances": list(self.distances),
            "symmetric": self.symmetric,
        }

    def load(self, device: torch.device) -> None:
        """Choose where pairs are counted; nothing is read."""
        self._device = torch.device(device)

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        """The row of each picture: (B, D) float64.

        Raises:
            DataError: a picture is no uint8 (3, H, W), or smaller than a patch.
        """
        check_pictures(image)
        return torch.stack([self._patches(picture).mean(0) for picture in image])

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Means of resamples, (R,)."""
        return weights @ rows[:, self.column].double() / weights.sum(1)

    def patch_map(self, image: Tensor) -> Tensor:
        """The metric's number of each patch of a picture (3, H, W): (rows, columns), as `cut_patches` lays them."""
        check_pictures([image])
        rows, columns = (-(-side // PATCH) for side in image.shape[1:])
        return self._patches(image)[:, self.column].reshape(rows, columns)

    def _patches(self, picture: Tensor) -> Tensor:
        """What is measured of each patch, (P, D) float64."""
        raise NotImplementedError

    def _other_form(self) -> tuple[str, ...]:
        if self.form == PUBLISHED:
            return ()
        return ("Not the published form of the matrices: this figure compares with others of the same settings only.",)


@define
class Entropies(Cooccurrence):
    """A row holds the published and the textbook entropy, in bits: both cost one pass."""

    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "bits"
    kind: ClassVar[str] = "glcm entropies"

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:  # noqa: ARG002
        """Mean over pictures, in bits.

        Raises:
            DataError: there are none.
        """
        return float(_means(rows)[self.column])

    def _patches(self, picture: Tensor) -> Tensor:
        patches = torch.from_numpy(cut_patches(grey_levels(picture, self.levels)))
        if self._device.type != "cpu":
            return tensors.patch_entropies(patches.to(self._device), self.form)
        return torch.from_numpy(patch_entropies(patches.numpy(), self.form))


@define
class GLCMScore(Entropies):
    """The GLCM score as published: between 0.5 and 0.8 for the images of the paper, higher with more detail.

    It is the entropy of *how often each value occurs* among the cells of the co-occurrence matrices of a patch; not the
    textbook entropy, which is `GLCMEntropy`. Mean over the patches of an image, then over images. A row is (2,): this
    score and the textbook entropy of the picture.

    Args:
        levels: grey levels after quantisation, a power of two; 64 as published.
        distances: pixels between the two of a pair; 1 to 4 as published.
        symmetric: whether each pair counts in both directions; false as published.

    Source: Zhang et al., "Diffusion-4K", arXiv 2503.18352, section 4.

    >>> metric = GLCMScore()
    >>> round(metric.score(metric.observe([torch.zeros(3, 64, 64, dtype=torch.uint8)])), 4)  # 16 of 65536 cells
    0.0033
    """

    column: ClassVar[int] = 0

    def remarks(self, count: int, references: int) -> tuple[str, ...]:  # noqa: ARG002
        """Where published scores lie, or that this is another form."""
        return self._other_form() or (
            "Published scores lie between 0.58 and 0.79; noise counts as detail, and scores above 3.",
        )


@define
class GLCMEntropy(Entropies):
    """The textbook entropy of grey-level co-occurrence, -sum p log2 p: between 0 and 12 bits, higher with more detail.

    Same grey levels, patches, offsets and rows as `GLCMScore`; mean over the offsets, the patches, the images. With
    `levels` other than 64 it is at most twice the bits of a level.

    Args:
        levels: as `GLCMScore`.
        distances: likewise.
        symmetric: likewise.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973, f9.
    """

    column: ClassVar[int] = 1

    def remarks(self, count: int, references: int) -> tuple[str, ...]:  # noqa: ARG002
        """That it is another quantity than the published one."""
        return ("Another quantity than the published GLCM score, which is the metric `glcm`.", *self._other_form())


@define
class GLCMProperty(Cooccurrence):
    """Haralick's other properties of the same matrices, as scikit-image's `graycoprops` defines them.

    One of the six is the score, the others are its details. Mean over the offsets, the patches of an image, then over
    images. A row is (6,): contrast (in squared levels), dissimilarity (in levels), homogeneity, energy, correlation and
    ASM of the picture, and the same whichever is the score.

    Args:
        property: which one is the score. More detail raises contrast and dissimilarity, and lowers the others.
        levels: as `GLCMScore`.
        distances: likewise.
        symmetric: likewise; it changes energy, correlation and ASM.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973.

    >>> metric = GLCMProperty(property="homogeneity", distances=(1,))
    >>> metric.score(metric.observe([torch.zeros(3, 64, 64, dtype=torch.uint8)]))["homogeneity"]
    1.0
    """

    unit: ClassVar[str] = ""
    kind: ClassVar[str] = "glcm properties"

    @property
    def higher_is_better(self) -> bool:
        """Whether more detail raises the property."""
        return self.property in ("contrast", "dissimilarity")

    @property
    def column(self) -> int:
        """Of a row, where the property lies."""
        return PROPERTIES.index(self.property)

    # below the two above, since it hides the decorator of its name
    property: Property = field(default="contrast", validator=in_(get_args(Property)))

    def score(self, rows: Tensor, references: Tensor | None = None) -> dict[str, float]:  # noqa: ARG002
        """Means over pictures: `property` first, then the other five.

        Raises:
            DataError: there are none.
        """
        means = dict(zip(PROPERTIES, _means(rows).tolist(), strict=True))
        return {self.property: means.pop(self.property)} | means

    def remarks(self, count: int, references: int) -> tuple[str, ...]:  # noqa: ARG002
        """That it is another form than the published one, where it is."""
        return self._other_form()

    def _patches(self, picture: Tensor) -> Tensor:
        return torch.from_numpy(patch_properties(cut_patches(grey_levels(picture, self.levels)), self.form))


def _means(rows: Tensor) -> Tensor:
    if not len(rows):
        raise DataError("no picture was measured; there must be at least one")
    return rows.double().mean(0)
