"""The metrics: distances between a set of pictures and a set of references, and shares of the one in the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from attrs import define, field
from attrs.validators import in_, instance_of
from torch import Tensor

from d4k_fid.base import FeatureMetric, ResizedMetric, pictures_of
from d4k_fid.frechet import frechet_distances
from d4k_fid.kernel import kernel_distances
from d4k_fid.neighbours import precisions, recalls
from d4k_fid.networks import WIDTH, features
from d4k_fid.pixels import cut_grid, cut_random

__all__ = ["FID", "KID", "FDDINOv2", "PatchFID", "Precision", "Recall"]

NEIGHBOURS = 3
"""Of precision and recall."""


@define(eq=False, slots=False, kw_only=True)
class FID(ResizedMetric):
    """The Frechet inception distance: how far pictures are from references, as Gaussians of 2048 features of Inception.

    Lower is better; 0 for the same set. Biased upwards with few pictures: compare sets of as many.

    Source: Heusel et al. 2017, arXiv 1706.08500; network and weights by torch-fidelity, those of the original.
    """

    def remarks(self, count: int, references: int) -> Sequence[str]:
        """That covariances are singular, where they are."""
        return (*super().remarks(count, references), *_rank(count, references, WIDTH[self.network]))

    def _scores(self, rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
        return frechet_distances(rows, weights, references)


@define(eq=False, slots=False, kw_only=True)
class KID(ResizedMetric):
    """The kernel inception distance: squared maximum mean discrepancy of Inception's features, without bias.

    Over all pairs of pictures, where others average random subsets. Lower is better; slightly below 0 for sets that are
    as alike as two halves of one.

    Source: Binkowski et al. 2018, arXiv 1801.01401.
    """

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the score shows: also how pairs are taken."""
        return {**super().settings, "kernel": "polynomial of degree 3", "pairs": "all"}

    def _scores(self, rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
        return kernel_distances(rows, weights, references)


@define(eq=False, slots=False, kw_only=True)
class _Shares(ResizedMetric):
    """What precision and recall have in common."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    higher_is_better: ClassVar[bool] = True
    fewest: ClassVar[int] = NEIGHBOURS + 1

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the score shows: also which neighbour counts."""
        return {**super().settings, "neighbours": NEIGHBOURS}

    def remarks(self, count: int, references: int) -> Sequence[str]:
        """That sets of unequal size have balls of unequal size."""
        said = super().remarks(count, references)
        if count == references:
            return said
        return (
            *said,
            f"Precision and recall of {count} pictures and {references} references compare only with those of as many: "
            "the balls around fewer pictures are larger.",
        )


@define(eq=False, slots=False, kw_only=True)
class Precision(_Shares):
    """The share of pictures that look like references: they lie within the three nearest neighbours of one.

    Source: Kynkaanniemi et al. 2019, arXiv 1904.06991, here on features of Inception.
    """

    def _scores(self, rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
        return precisions(rows, weights, references, NEIGHBOURS)


@define(eq=False, slots=False, kw_only=True)
class Recall(_Shares):
    """The share of references that look like pictures: how much of their variety is there.

    Source: Kynkaanniemi et al. 2019, arXiv 1904.06991, here on features of Inception.
    """

    def _scores(self, rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
        return recalls(rows, weights, references, NEIGHBOURS)


@define(eq=False, slots=False, kw_only=True)
class FDDINOv2(FID):
    """The Frechet distance on features of DINOv2, which agrees with people better than that on Inception's.

    Args:
        network: "dinov2-vit-l-14", as in the paper, or the smaller "dinov2-vit-b-14" and "dinov2-vit-s-14".
        preprocessing: as of `FID`; here "clean" by default, since the paper resizes with an antialiased bicubic filter.

    Source: Stein et al. 2023, arXiv 2306.04675.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch-fidelity", "torchvision", "timm")

    network: str = field(
        default="dinov2-vit-l-14", validator=in_(("dinov2-vit-s-14", "dinov2-vit-b-14", "dinov2-vit-l-14"))
    )
    preprocessing: Literal["published", "clean"] = field(default="clean", validator=in_(("published", "clean")))


@define(eq=False, slots=False, kw_only=True)
class PatchFID(FeatureMetric):
    """FID of patches of 299x299 pixels, cut from pictures at their full resolution: what FID's resizing throws away.

    A picture gives a row a patch.

    Args:
        patches: "grid" covers each picture, and the last patch of a row or column ends at the border; a number takes
            as many at random places.
        seed: of the random places.

    Source: random crops: Chai et al. 2022, arXiv 2204.07156.
    """

    patches: Literal["grid"] | int = field(default="grid")
    seed: int = field(default=0, validator=instance_of(int))

    @patches.validator
    def _check_patches(self, _: Any, value: Any) -> None:
        if value != "grid" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"patches must be 'grid' or how many, at least 1, got {value!r}")

    def __attrs_post_init__(self) -> None:
        """Refuse what would be ignored."""
        if self.patches == "grid" and self.seed:
            raise ValueError("seed belongs to patches at random places; a grid has none")

    def observe(self, image: Sequence[Tensor]) -> list[Tensor]:
        """The features of the patches of each picture: B of (K, 2048) float32.

        Raises:
            DataError: a picture is no uint8 (3, H, W), or smaller than a patch.
        """
        network = self._loaded()
        return [features(network, list(self._cut(picture))) for picture in pictures_of(image)]

    def remarks(self, count: int, references: int) -> Sequence[str]:
        """That patches of one picture are alike."""
        return (
            *super().remarks(count, references),
            f"The score compares the patches of {count} pictures with those of {references}; those of one picture are "
            "alike, and the interval is over pictures.",
        )

    def _input(self) -> Mapping[str, Any]:
        return {"patches": self.patches} | ({} if self.patches == "grid" else {"seed": self.seed})

    def _cut(self, picture: Tensor) -> Tensor:
        return cut_grid(picture) if isinstance(self.patches, str) else cut_random(picture, self.patches, self.seed)

    def _scores(self, rows: Tensor, weights: Tensor, references: Tensor) -> Tensor:
        return frechet_distances(rows, weights, references)


def _rank(count: int, references: int, width: int) -> Sequence[str]:
    if min(count, references) > width:
        return ()
    return (
        f"{count} pictures and {references} references in {width} dimensions: a covariance has not full rank, the "
        "distance is biased upwards, and it compares only with scores of as many pictures.",
    )
