"""Three measures of how much fine detail images have. No reference image and no network is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, ClassVar, Literal

import torch
from attrs import frozen
from PIL import Image
from torch import Tensor

from d4k import DataError
from d4k_glcm.cooccurrence import PATCH, cut_patches, grey_levels, patch_entropies

__all__ = ["CompressionRatio", "GLCMEntropy", "GLCMScore"]

QUALITY = 95


class Cooccurrence:
    """What the metrics of grey-level co-occurrence share: a row holds the published and the textbook entropy."""

    needs: ClassVar[frozenset[Literal["image"]]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "bits"
    patch: ClassVar[int] = PATCH
    column: ClassVar[int]

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row."""
        return {"rows": "glcm entropies", "version": 1}

    def load(self, device: torch.device) -> None:
        """Nothing is loaded."""

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        """Both entropies of each picture, the means over its patches: (B, 2) float64, in bits.

        Raises:
            DataError: a picture is no uint8 (3, H, W), or smaller than a patch.
        """
        return torch.stack([torch.from_numpy(_entropies(picture).mean(0)) for picture in _pictures(image)])

    def score(self, rows: Tensor, references: Tensor | None = None) -> float:  # noqa: ARG002
        """Mean over pictures, in bits.

        Raises:
            DataError: there are none.
        """
        return float(_some(rows)[:, self.column].mean())

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Means of resamples, (R,)."""
        return weights @ rows[:, self.column] / weights.sum(1)

    def patch_map(self, image: Tensor) -> Tensor:
        """The entropy of each patch, (rows, columns), in bits."""
        rows, columns = (-(-side // PATCH) for side in image.shape[1:])
        return torch.from_numpy(_entropies(image)[:, self.column]).reshape(rows, columns)


@frozen
class GLCMScore(Cooccurrence):
    """The GLCM score as published: between 0.5 and 0.8 for the images of the paper, higher with more detail.

    It is the entropy of *how often each value occurs* among the cells of the co-occurrence matrices of a patch; not the
    textbook entropy, which is `GLCMEntropy`. Mean over the patches of an image, then over images.

    Source: Zhang et al., "Diffusion-4K", arXiv 2503.18352, section 4.

    >>> metric = GLCMScore()
    >>> round(metric.score(metric.observe([torch.zeros(3, 64, 64, dtype=torch.uint8)])), 4)  # 16 of 65536 cells
    0.0033
    """

    column: ClassVar[int] = 0


@frozen
class GLCMEntropy(Cooccurrence):
    """The textbook entropy of grey-level co-occurrence, -sum p log2 p: between 0 and 12 bits, higher with more detail.

    Same grey levels, patches and offsets as `GLCMScore`; mean over the sixteen offsets, the patches, the images.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973, f9.
    """

    column: ClassVar[int] = 1


@frozen
class CompressionRatio:
    """Raw bytes of all images to their bytes as JPEG of quality 95: lower with more detail.

    Pillow's encoder with its default subsampling (4:2:0), as published.

    Source: Zhang et al., "Diffusion-4K", arXiv 2503.18352, section 4.
    """

    needs: ClassVar[frozenset[Literal["image"]]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""

    def load(self, device: torch.device) -> None:
        """Nothing is loaded."""

    def observe(self, image: Sequence[Tensor]) -> Tensor:
        """Pixels, and bytes as JPEG, of each picture: (B, 2) float64.

        Raises:
            DataError: a picture is no uint8 (3, H, W).
        """
        rows = [[picture.shape[1] * picture.shape[2], jpeg_size(picture)] for picture in _pictures(image)]
        return torch.tensor(rows, dtype=torch.float64)

    def score(self, rows: Tensor, references: Tensor | None = None) -> dict[str, float]:  # noqa: ARG002
        """The ratio over all images, and the bits of JPEG that a pixel took.

        Raises:
            DataError: there are none.
        """
        pixels, size = _some(rows).sum(0).tolist()
        return {"compression-ratio": 3 * pixels / size, "bits-per-pixel": 8 * size / pixels}


def jpeg_size(picture: Tensor) -> int:
    """Bytes of a picture, uint8 (3, H, W), as JPEG of quality 95."""
    file = BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy()).save(file, "JPEG", quality=QUALITY)
    return file.tell()


def _entropies(picture: Tensor) -> Any:
    return patch_entropies(cut_patches(grey_levels(picture)))


def _some(rows: Tensor) -> Tensor:
    if not len(rows):
        raise DataError("no picture was measured; there must be at least one")
    return rows


def _pictures(image: Sequence[Tensor]) -> Sequence[Tensor]:
    for picture in image:
        if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] != 3:
            raise DataError(f"pictures must be uint8 (3, H, W), got {picture.dtype} {tuple(picture.shape)}")
    return image
