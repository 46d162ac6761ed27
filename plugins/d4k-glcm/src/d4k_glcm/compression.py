"""How far a picture can be compressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from attrs import define, field
from attrs.validators import in_
from PIL import Image
from torch import Tensor

from d4k import DataError
from d4k_glcm.checks import check_pictures

__all__ = ["CompressionRatio", "jpeg_size"]

QUALITY = 95
Size = Literal["encoded", "file"]


@define
class CompressionRatio:
    """Raw bytes of all images to their bytes compressed: lower with more detail.

    A row is (2,): the pixels of the picture, and its bytes.

    Args:
        source: "encoded" measures every picture as JPEG of quality 95, made here by Pillow's encoder with its default
            subsampling (4:2:0), which are the files that the paper measured. "file" measures the file as it lies, as
            the published script does: for a folder of JPEGs of one quality.

    Source: Zhang et al., "Diffusion-4K", arXiv 2503.18352, section 4.

    >>> metric = CompressionRatio()
    >>> metric.score(metric.observe([torch.zeros(3, 256, 256, dtype=torch.uint8)]))["compression-ratio"] > 100
    True
    """

    source: Size = field(default="encoded", validator=in_(get_args(Size)))

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    patch: ClassVar[int] = 256

    @property
    def needs(self) -> frozenset[Literal["image", "file"]]:
        """Pictures, and their files where these are measured."""
        return frozenset({"image", "file"}) if self.source == "file" else frozenset({"image"})

    @property
    def observation(self) -> Mapping[str, Any]:
        """What decides a row."""
        made = {"quality": QUALITY} if self.source == "encoded" else {}
        return {"rows": "pixels and bytes", "version": 1, "source": self.source, **made}

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the score shows: whose bytes they are."""
        return {"source": self.source, "quality": QUALITY if self.source == "encoded" else "as the file"}

    @property
    def packages(self) -> tuple[str, ...]:
        """Whose encoder was used."""
        return ("pillow",) if self.source == "encoded" else ()

    def load(self, device: torch.device) -> None:
        """Nothing is loaded."""

    def observe(self, image: Sequence[Tensor], file: Sequence[Path] | None = None) -> Tensor:
        """Pixels and bytes of each picture: (B, 2) float64.

        Raises:
            DataError: a picture is no uint8 (3, H, W), or its file cannot be asked for its size.
        """
        check_pictures(image)
        pixels = [picture.shape[1] * picture.shape[2] for picture in image]
        if self.source == "encoded":
            sizes = [jpeg_size(picture) for picture in image]
        else:
            sizes = [_file_size(path) for path in file or ()]
        return torch.tensor(list(zip(pixels, sizes, strict=True)), dtype=torch.float64).reshape(-1, 2)

    def score(self, rows: Tensor, references: Tensor | None = None) -> dict[str, float]:  # noqa: ARG002
        """The ratio over all images, and the bits that a pixel took.

        Raises:
            DataError: there are none.
        """
        if not len(rows):
            raise DataError("no picture was measured; there must be at least one")
        pixels, size = rows.double().sum(0).tolist()
        return {"compression-ratio": 3 * pixels / size, "bits-per-pixel": 8 * size / pixels}

    def weighted_scores(self, rows: Tensor, weights: Tensor, references: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Ratios of resamples, (R,)."""
        pixels, size = (weights @ rows.double()).unbind(1)
        return 3 * pixels / size

    def patch_map(self, image: Tensor) -> Tensor:
        """The ratio of each patch as a JPEG of its own: (rows, columns), laid as those of the GLCM score.

        Each of them carries the 600 bytes or so of a JPEG's header, which limit the ratio of a flat patch to about 200;
        256 pixels a side keep that share small where there is detail. The last patch is aligned to the border; a
        picture that is smaller than a patch is one. Patches are encoded here, whatever `source` is.
        """
        check_pictures([image])
        rows, columns = (
            [*range(0, side - self.patch, self.patch), max(0, side - self.patch)] for side in image.shape[1:]
        )
        pieces = [[image[:, y : y + self.patch, x : x + self.patch] for x in columns] for y in rows]
        return torch.tensor(
            [[piece.numel() / jpeg_size(piece) for piece in row] for row in pieces], dtype=torch.float64
        )

    def remarks(self, count: int, references: int) -> tuple[str, ...]:  # noqa: ARG002
        """Whose bytes were counted, and where published ratios lie."""
        if self.source == "file":
            return ("Sizes are those of the files as they lie: compare only files of one format and quality.",)
        return ("Published ratios, of JPEG at quality 95, lie between 10.5 and 14.8.",)


def jpeg_size(picture: Tensor) -> int:
    """Bytes of a picture, uint8 (3, H, W), as JPEG of quality 95."""
    file = BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy()).save(file, "JPEG", quality=QUALITY)
    return file.tell()


def _file_size(path: Path) -> int:
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise DataError(f"cannot ask for the size of {path}: {error.strerror}", path) from error
    if not size:
        raise DataError(f"{path} is empty, and has no compression ratio", path)
    return size
