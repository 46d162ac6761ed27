"""Three measures of how much fine detail images have. No reference image and no network is needed."""

from __future__ import annotations

from io import BytesIO
from typing import ClassVar, Literal

import torch
from attrs import define, field
from PIL import Image
from torch import Tensor

from d4k import DataError
from d4k_glcm.cooccurrence import cut_patches, grey_levels, patch_entropies

__all__ = ["CompressionRatio", "GLCMEntropy", "GLCMScore"]

QUALITY = 95


@define
class GLCMScore:
    """The GLCM score as published: between 0.5 and 0.8 for the images of the paper, higher with more detail.

    It is the entropy of *how often each value occurs* among the cells of the co-occurrence matrices of a patch; not the
    textbook entropy, which is `GLCMEntropy`. Mean over the patches of an image, then over images.

    Source: Zhang et al., "Diffusion-4K", arXiv 2503.18352, section 4.

    >>> metric = GLCMScore()
    >>> metric.update(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    >>> round(metric.compute(), 4)  # 16 of 65536 cells hold everything
    0.0033
    """

    needs: ClassVar[frozenset[Literal["image"]]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "bits"
    _scores: list[float] = field(factory=list, init=False, repr=False)

    def update(self, image: Tensor) -> None:
        """Take in images.

        Args:
            image: uint8 (B, 3, H, W), RGB, sides of at least 64 pixels.

        Raises:
            DataError: it is something else, or smaller.
        """
        self._scores += [_mean_entropy(picture, 0) for picture in _pictures(image)]

    def compute(self) -> float:
        """Mean over all images since `reset`, in bits.

        Raises:
            DataError: there were none.
        """
        return _mean(self._scores)

    def reset(self) -> None:
        """Forget all images."""
        self._scores = []


@define
class GLCMEntropy:
    """The textbook entropy of grey-level co-occurrence, -sum p log2 p: between 0 and 12 bits, higher with more detail.

    Same grey levels, patches and offsets as `GLCMScore`; mean over the sixteen offsets, the patches, the images.

    Source: Haralick, Shanmugam, Dinstein, "Textural features for image classification", IEEE SMC-3(6), 1973, f9.

    >>> metric = GLCMEntropy()
    >>> metric.update(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    >>> metric.compute()
    0.0
    """

    needs: ClassVar[frozenset[Literal["image"]]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "bits"
    _scores: list[float] = field(factory=list, init=False, repr=False)

    def update(self, image: Tensor) -> None:
        """Take in images.

        Args:
            image: uint8 (B, 3, H, W), RGB, sides of at least 64 pixels.

        Raises:
            DataError: it is something else, or smaller.
        """
        self._scores += [_mean_entropy(picture, 1) for picture in _pictures(image)]

    def compute(self) -> float:
        """Mean over all images since `reset`, in bits.

        Raises:
            DataError: there were none.
        """
        return _mean(self._scores)

    def reset(self) -> None:
        """Forget all images."""
        self._scores = []


@define
class CompressionRatio:
    """Raw bytes of all images to their bytes as JPEG of quality 95: lower with more detail.

    Pillow's encoder with its default subsampling (4:2:0), as published.

    Source: Zhang et al., "Diffusion-4K", arXiv 2503.18352, section 4.
    """

    needs: ClassVar[frozenset[Literal["image"]]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    _pixels: int = field(default=0, init=False, repr=False)
    _bytes: int = field(default=0, init=False, repr=False)

    def update(self, image: Tensor) -> None:
        """Take in images.

        Args:
            image: uint8 (B, 3, H, W), RGB.

        Raises:
            DataError: it is something else.
        """
        for picture in _pictures(image):
            self._pixels += picture.shape[1] * picture.shape[2]
            self._bytes += jpeg_size(picture)

    def compute(self) -> dict[str, float]:
        """The ratio over all images since `reset`, and the bits of JPEG that a pixel took.

        Raises:
            DataError: there were none.
        """
        if not self._bytes:
            raise DataError(_EMPTY)
        return {
            "compression-ratio": 3 * self._pixels / self._bytes,
            "bits-per-pixel": 8 * self._bytes / self._pixels,
        }

    def reset(self) -> None:
        """Forget all images."""
        self._pixels = self._bytes = 0


def jpeg_size(picture: Tensor) -> int:
    """Bytes of a picture, uint8 (3, H, W), as JPEG of quality 95."""
    file = BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy()).save(file, "JPEG", quality=QUALITY)
    return file.tell()


_EMPTY = "no image was measured; call update with at least one before compute"


def _mean_entropy(picture: Tensor, which: int) -> float:
    return float(patch_entropies(cut_patches(grey_levels(picture)))[:, which].mean())


def _mean(scores: list[float]) -> float:
    if not scores:
        raise DataError(_EMPTY)
    return sum(scores) / len(scores)


def _pictures(image: Tensor) -> Tensor:
    if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
        raise DataError(f"images must be uint8 (B, 3, H, W), got {image.dtype} {tuple(image.shape)}")
    return image
