"""The pictures that others are made of: image-to-image, and enlarging."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from PIL import Image

from d4k.errors import ConfigError, DataError
from d4k.images import Crop, open_picture, picture_size
from d4k.sampling.jobs import Job
from d4k.sampling.stages import Size, auto_stages, is_auto, read_size

__all__ = ["Sources", "check_source", "digest", "fit", "fitted", "size_like", "stages_like", "warn_of_cut"]

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
        width, height = size_like(self.size(job.image), job.width, job.height, stages, self.granularity)
        return attrs.evolve(job, width=width, height=height)

    def stages(self, job: Job, asked: Asked) -> tuple[Any, ...] | str | None:
        """The stages of a job, for `choose_settings`.

        From a picture on, "auto" is twice its sides and so on, up to the size of the job, and a side is one of a
        picture at its aspect.
        """
        if asked is None or (job.image is None and isinstance(asked, str)):
            return asked
        if job.image is None:
            return tuple(tuple(one) if isinstance(one, list) else one for one in _listed(asked))
        assert job.width is not None
        assert job.height is not None
        return stages_like(self.size(job.image), (job.width, job.height), asked, self.granularity)

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
        DataError: it cannot be read, or has changed since the recipe was made.
    """
    if "image" not in recipe:
        return None
    image = Path(recipe["image"])
    picture = open_picture(image)
    if digest(image) != recipe["image_sha256"]:
        raise DataError(f"{image} has changed since this command began; run it again", image)
    return fit(picture, size)


def fit(picture: Image.Image, size: Size) -> Image.Image:
    """A picture in the shape of a size: cut to its aspect around the centre, and reduced to it where it is larger."""
    crop = Crop(size[1], size[0])
    if picture.width >= size[0] and picture.height >= size[1]:
        return crop(picture, seed=0)
    left, top, right, bottom = (round(side) for side in crop.cut(picture.size, seed=0).box)
    return picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def size_like(own: Size, width: int | None, height: int | None, stages: Asked, granularity: int) -> Size:
    """The size of a result that begins with a picture: as asked for, else that of its last stage, or of the picture.

    Args:
        own: width and height of the picture.
        width: asked for; where one side is, the other is at the aspect of the picture.
        height: likewise.
        stages: asked for.
        granularity: pixels that the sides of a result are multiples of.
    """
    if stages is not None and not is_auto(stages) and not (width or height):
        return read_size(_listed(stages)[-1], own, granularity)
    scale = (width or 0) / own[0] or (height or 0) / own[1] or 1.0
    like = [max(1, round(side * scale / granularity)) * granularity for side in own]
    return width or like[0], height or like[1]


def stages_like(own: Size, final: Size, asked: Asked, granularity: int) -> tuple[Any, ...] | None:
    """The stages from a picture up to a size, for `choose_settings`; see `Sources.stages`.

    Args:
        own: width and height of the picture.
        final: of the result.
        asked: stages, as a user wrote them.
        granularity: pixels that the sides of a result are multiples of.
    """
    if asked is None:
        return None
    if is_auto(asked):
        return tuple(auto_stages(final, round(2 * math.sqrt(math.prod(own))), granularity))
    return tuple(read_size(one, final, granularity) for one in _listed(asked))


def warn_of_cut(own: Size, final: Size, granularity: int) -> None:
    """Say that more of a picture is cut off than rounding to the granularity does.

    Args:
        own: width and height of the picture.
        final: of the result.
        granularity: pixels that the sides of a result are multiples of.

    Warns:
        UserWarning: the picture has another aspect.
    """
    scale = max(side / before for side, before in zip(final, own, strict=True))
    if max(round(before * scale) - side for side, before in zip(final, own, strict=True)) > granularity:
        warnings.warn(
            f"the picture to begin with is {own[0]}x{own[1]}, and {final[0]}x{final[1]} is asked for: what does not "
            "fit is cut off around its centre. Give one side only to keep its aspect",
            stacklevel=3,
        )


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


def _listed(stages: Any) -> Sequence[Any]:
    if isinstance(stages, str):
        return stages.split(",")
    return stages if isinstance(stages, Sequence) else [stages]


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
