"""The sample photographs: twelve public-domain and CC0 pictures that scikit-image's wheel carries."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from attrs import field, frozen
from attrs.converters import optional

from d4k import D4KError, Sample


@frozen
class Photo:
    """One sample photograph: file in `skimage/data`, caption, other wordings, and licence as the source states it."""

    file_name: str
    caption: str
    variants: tuple[str, ...]
    licence: str

    @property
    def id(self) -> str:
        """The file name without its ending, e.g. `chelsea`."""
        return Path(self.file_name).stem


PHOTOS = (
    Photo(
        "astronaut.png",
        "an astronaut in an orange suit",
        ("an astronaut", "a woman in an orange space suit"),
        "public domain (NASA)",
    ),
    Photo("chelsea.png", "a tabby cat", ("a cat", "a photo of a cat"), "CC0 (Stefan van der Walt)"),
    Photo(
        "coffee.png",
        "a cup of coffee on a wooden table",
        ("a cup of coffee", "coffee with a spoon"),
        "CC0 (Rachel Michetti)",
    ),
    Photo(
        "rocket.jpg",
        "a rocket lifting off at night",
        ("a rocket", "a rocket launch"),
        "public domain (SpaceX)",
    ),
    Photo(
        "hubble_deep_field.jpg",
        "galaxies in deep space",
        ("galaxies", "stars and galaxies"),
        "public domain (NASA)",
    ),
    Photo("retina.jpg", "the retina of a human eye", ("a retina", "an eye"), "CC0 (Mikael Häggström)"),
    Photo(
        "cell.png",
        "a cell under a microscope",
        ("a cell", "one cell in saline"),
        "CC0 (Paul Müller et al.)",
    ),
    Photo(
        "camera.png",
        "a man with a camera on a tripod",
        ("a cameraman", "a man with a camera"),
        "CC0 (Lav Varshney)",
    ),
    Photo(
        "coins.png",
        "rows of old Greek coins",
        ("coins", "old coins"),
        "no known copyright restrictions (Brooklyn Museum)",
    ),
    Photo(
        "clock_motion.png",
        "a blurred wall clock",
        ("a clock", "a wall clock"),
        "public domain (Stefan van der Walt)",
    ),
    Photo(
        "ihc.png",
        "stained tissue in brown and blue",
        ("stained tissue", "tissue under a microscope"),
        "no known copyright restrictions (CMMI)",
    ),
    Photo("brick.png", "a brick wall", ("bricks", "a wall of bricks"), "CC0 (CC0 Textures)"),
)


@cache
def photo_folder() -> Path:
    """The folder of the installed scikit-image that holds the photographs.

    Raises:
        D4KError: scikit-image is not installed.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise D4KError("sample-photos needs scikit-image, which carries the pictures: pip install scikit-image")
    return Path(spec.origin).parent / "data"


@frozen
class SamplePhotos:
    """The sample photographs as a dataset.

    Args:
        names: ids of the photographs to take, such as `["chelsea", "coffee"]`; None takes all.

    >>> SamplePhotos(names=["chelsea"])[0].caption
    'a tabby cat'
    """

    names: tuple[str, ...] | None = field(default=None, converter=optional(tuple))

    @names.validator
    def _check_names(self, attribute: object, value: tuple[str, ...] | None) -> None:  # noqa: ARG002
        known = [photo.id for photo in PHOTOS]
        for name in value or ():
            if name not in known:
                raise ValueError(f"names must be among {', '.join(known)}; got '{name}'")

    @property
    def photos(self) -> tuple[Photo, ...]:
        """The chosen photographs, in the order of `PHOTOS`."""
        return tuple(photo for photo in PHOTOS if self.names is None or photo.id in self.names)

    def __len__(self) -> int:
        """The number of photographs."""
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        """Photograph `index`."""
        photo = self.photos[index]
        return Sample(photo.id, photo.caption, photo_folder() / photo.file_name)
