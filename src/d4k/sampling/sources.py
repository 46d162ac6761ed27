"""The pictures that others are made of: image-to-image, and enlarging."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from PIL import Image

from d4k.errors import ConfigError, DataError
from d4k.images import Crop, open_picture, picture_size
from d4k.sampling.jobs import Job
from d4k.sampling.stages import Size, auto_stages, read_size

__all__ = ["Sources", "check_source", "fitted"]

AUTO = "auto"
Asked: TypeAlias = str | Sequence[Any] | None
"""Stages as `d4k.sampling.stages.stage_sizes` reads them."""


class Sources:
    """Knows the size and the content of the pictures that jobs begin with; each is looked at once.

    Args:
        granularity: pixels that the sides of a result are multiples of.
    """

    def __init__(self, granularity: int = 1) -> None:
        self.granularity = granularity
        self._sizes: dict[Path, Size] = {}
        self._digests: dict[Path, str] = {}

    def size(self, image: Path) -> Size:
        """Width and height, upright.

        Raises:
            DataError: the picture cannot be read.
        """
        if image not in self._sizes:
            self._sizes[image] = picture_size(image, upright=True)
        return self._sizes[image]

    def sized(self, job: Job, stages: Asked = None) -> Job:
        """The job with a size, where it begins with a picture and has none: that of its last stage, or of its picture.

        Of one side, the other is at the aspect of the picture.
        """
        if job.image is None or (job.width and job.height):
            return job
        size = self.size(job.image)
        if stages is not None and stages != AUTO and not (job.width or job.height):
            width, height = read_size(_listed(stages)[-1], size, self.granularity)
            return attrs.evolve(job, width=width, height=height)
        scale = (job.width or 0) / size[0] or (job.height or 0) / size[1] or 1.0
        width, height = (max(1, round(side * scale / self.granularity)) * self.granularity for side in size)
        return attrs.evolve(job, width=job.width or width, height=job.height or height)

    def stages(self, job: Job, asked: Asked) -> tuple[Any, ...] | str | None:
        """The stages of a job, for `choose_settings`.

        From a picture on, "auto" is twice its sides and so on, up to the size of the job, and a side is one of a
        picture at its aspect.
        """
        if job.image is None or asked is None:
            return asked if asked is None or isinstance(asked, str) else tuple(asked)
        assert job.width is not None
        assert job.height is not None
        final = (job.width, job.height)
        if asked == AUTO:
            return tuple(auto_stages(final, round(2 * math.sqrt(math.prod(self.size(job.image)))), self.granularity))
        return tuple(read_size(one, final, self.granularity) for one in _listed(asked))

    def record(self, job: Job) -> dict[str, str]:
        """What a recipe keeps of a job's picture: its path, and the SHA-256 of the file."""
        if job.image is None:
            return {}
        if job.image not in self._digests:
            self._digests[job.image] = digest(job.image)
        return {"image": str(job.image), "image_sha256": self._digests[job.image]}


def fitted(recipe: Mapping[str, Any], size: Size) -> Image.Image | None:
    """The picture that a recipe begins with, in the shape of a size; None where it begins with noise.

    It is cut to the aspect around its centre. A picture that is larger is reduced to the size; one that is smaller is
    left to the upscaler.

    Raises:
        DataError: it cannot be read.
    """
    if "image" not in recipe:
        return None
    picture = open_picture(Path(recipe["image"]))
    crop = Crop(size[1], size[0])
    if picture.width >= size[0] and picture.height >= size[1]:
        return crop(picture, seed=0)
    left, top, right, bottom = (round(side) for side in crop.cut(picture.size, seed=0).box)
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def check_source(recipe: Mapping[str, Any], where: object) -> None:
    """Refuse a recipe whose picture to begin with is not there any more, or is another one.

    Args:
        recipe: that is to be repeated.
        where: it was read from, for messages.

    Raises:
        ConfigError: the message says what to name.
    """
    if "image_sha256" not in recipe and "image" not in recipe:
        return
    if "image" not in recipe:
        raise ConfigError(f"{where} was made from a picture that has no path; name it with --image")
    image = Path(recipe["image"])
    if not image.is_file():
        raise ConfigError(f"{where} was made from {image}, which is not there; name that picture with --image")
    if digest(image) != recipe.get("image_sha256"):
        raise ConfigError(f"{where} was made from {image}, which has changed since; name that picture with --image")


def _listed(stages: str | Sequence[Any]) -> Sequence[Any]:
    return stages.split(",") if isinstance(stages, str) else stages


def digest(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # the latter for a name with a NUL character
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", file) from error
