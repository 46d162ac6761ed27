"""The pictures of the dataset, cut to the size of the benchmark: what the models are compared with."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attrs import frozen
from tqdm import tqdm

from d4k.benchmark.settings import BenchmarkSettings
from d4k.errors import ConfigError, DataError, first_line
from d4k.images import Crop, open_picture, picture_size, read_recipe, save_picture
from d4k.plugins import create
from d4k.protocols import Sample

__all__ = ["Photograph", "cut_photographs", "look_at_photographs", "read_samples", "warn_of_small"]


@frozen
class Photograph:
    """A picture of the dataset, as its file was found.

    Args:
        id: of the sample.
        caption: likewise.
        sha256: of the file as it lies, in hexadecimal.
        width: in pixels, upright.
        height: likewise.
        name: of the file that it is cut into.
    """

    id: str
    caption: str
    sha256: str
    width: int
    height: int
    name: str

    @property
    def record(self) -> dict[str, str]:
        """What the manifest says of it."""
        return {"id": self.id, "caption": self.caption, "sha256": self.sha256}


def read_samples(settings: BenchmarkSettings) -> list[Sample]:
    """The samples of the dataset that take part.

    Raises:
        UnknownNameError: there is no such dataset.
        ConfigError: it has no such option.
        DataError: it cannot be read, is empty, or two samples have one id.
    """
    if settings.split is not None and "split" in settings.dataset_options:
        raise ConfigError("the split is given twice, as such and as an option of the dataset; leave one out")
    options = {} if settings.split is None else {"split": settings.split}
    dataset = create("dataset", settings.dataset, **settings.dataset_options, **options)
    count = len(dataset)
    if not count:
        raise DataError(f"dataset '{settings.dataset}' holds no picture; a benchmark needs at least one")
    samples = [dataset[index] for index in range(min(count, settings.limit or count))]
    ids: set[str] = set()
    for sample in samples:
        if sample.id in ids:
            raise DataError(f"dataset '{settings.dataset}' has two pictures with the id '{sample.id}'; rename one")
        ids.add(sample.id)
    return samples


def look_at_photographs(samples: Sequence[Sample]) -> list[Photograph]:
    """Read each picture's file once: its SHA-256, and its size by the header.

    Args:
        samples: of the dataset.

    Raises:
        DataError: one is missing, or no picture.
    """
    digits = max(4, len(str(len(samples) - 1)))

    def one(number: int, sample: Sample) -> Photograph:
        slug = re.sub(r"[^a-z0-9]+", "-", Path(sample.id).stem.lower()).strip("-")[:60] or "picture"
        sha256, size = _digest(sample), picture_size(sample.source, label=sample.id, upright=True)
        return Photograph(sample.id, sample.caption, sha256, *size, f"{number:0{digits}d}-{slug}.png")

    with ThreadPoolExecutor(4) as pool:
        found = pool.map(one, range(len(samples)), samples)
        return list(tqdm(found, "reading the dataset", len(samples), unit="picture", delay=1, leave=False))


def _digest(sample: Sample) -> str:
    try:
        source: Any = sample.source
        with source.open("rb") if isinstance(source, Path) else source() as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"picture '{sample.id}' cannot be read: {first_line(error)}") from error


def warn_of_small(photographs: Sequence[Photograph], width: int, height: int) -> None:
    """Warn of pictures that have to be enlarged, which makes them poor references."""
    small = [found for found in photographs if found.width < width or found.height < height]
    if small:
        first = small[0]
        verb = "is" if len(small) == 1 else "are"
        warnings.warn(
            f"{len(small)} of the dataset's {len(photographs)} pictures {verb} smaller than {width}x{height} and "
            f"{verb} enlarged: a poor reference. The first is '{first.id}' of {first.width}x{first.height} pixels",
            stacklevel=2,
        )


def cut_photographs(
    folder: Path,
    share: Iterable[tuple[Photograph, Sample]],
    width: int,
    height: int,
    seen: Callable[[], object],
) -> None:
    """Resize the short side, cut the centre, and save; what is there already stays.

    Args:
        folder: for the PNG files.
        share: pictures of this process, with their samples.
        width: of the results in pixels.
        height: likewise.
        seen: called after each.

    Raises:
        DataError: a picture cannot be read.
        OutputError: a file cannot be written.
    """
    crop = Crop(height, width)
    for photograph, sample in share:
        file = folder / photograph.name
        recipe = {**photograph.record, "width": width, "height": height, "crop": "center", "filter": "lanczos"}
        if _recipe(file) != recipe:
            save_picture(crop(open_picture(sample.source, label=sample.id), 0), file, recipe=recipe)
        seen()


def _recipe(file: Path) -> dict[str, Any] | None:
    """What a file was cut from and how; None where there is no such file."""
    try:
        return read_recipe(file) if file.is_file() else None
    except DataError:
        return None
