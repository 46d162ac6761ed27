"""From the words of a user to the pictures that they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from d4k.datasets.build.sources.folders import FolderSource
from d4k.datasets.build.sources.hub import HUB_ID, card_of, download
from d4k.datasets.build.sources.tables import ENDINGS as TABLES
from d4k.datasets.build.sources.tables import list_table
from d4k.datasets.build.values import Listed
from d4k.errors import ConfigError, DataError
from d4k.files import is_file, is_folder
from d4k.images.read import ENDINGS as PICTURES

__all__ = ["Listing", "list_sources"]


@frozen
class Listing:
    """What the sources name.

    Args:
        pictures: in the order of the sources.
        others: files in folders that are no pictures, counted by their ending.
    """

    pictures: tuple[Listed, ...]
    others: Counter[str] = field(factory=Counter)


def list_sources(sources: Sequence[str | Path], output: Path) -> Listing:
    """List the pictures of all sources; none is opened.

    Args:
        sources: folders, pictures, tables (`.parquet`, `.csv`), and ids of datasets on the Hub.
        output: folder of the dataset, which is not looked into where it lies in a source.

    Raises:
        ConfigError: there is no source, or one lies in `output`.
        DataError: a source cannot be read, or there is no picture in any.
    """
    if not sources:
        raise ConfigError(
            "no source was given; name folders of pictures, a Parquet or CSV of paths or URLs, or a Hub id"
        )
    pictures: list[Listed] = []
    others: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for source in sources:
        found, beside = _list(source, output.absolute(), labels)
        pictures += found
        others += beside
    if not pictures:
        said = f"; they hold {sum(others.values())} other files" if others else ""
        raise DataError(f"there is no picture in {', '.join(map(str, sources))}{said}. Looked for {_looked_for()}")
    return Listing(tuple(_unique(pictures)), others)


def _list(source: str | Path, output: Path, labels: Counter[str]) -> tuple[list[Listed], Counter[str]]:
    path = Path(source).expanduser()
    if is_folder(path, DataError) or is_file(path, DataError):
        whole = path.absolute()
        if whole.resolve().is_relative_to(output.resolve()):
            raise ConfigError(f"source {source} lies in the output folder {output}; name another output")
        if is_folder(path, DataError):
            folder = FolderSource(whole, _label(whole.name, labels), output)
            return list(folder), folder.others
        if path.suffix.lower() in TABLES:
            return list(list_table(whole, _label(whole.stem, labels))), Counter()
        if path.suffix.lower() in PICTURES:
            return [Listed(whole.name, whole)], Counter()
        raise DataError(f"source {source} is no picture and no table; allowed: {_looked_for()}", path)
    if not HUB_ID.fullmatch(str(source)):
        raise DataError(f"source {source} does not exist, and is no Hub id either; check the path", path)
    snapshot = download(str(source))
    hub = FolderSource(snapshot, _label(str(source), labels), output, card_of(str(source), snapshot))
    found = list(hub)
    if not found:
        raise DataError(
            f"the Hub dataset '{source}' holds no picture files, but {dict(hub.others)}; "
            "pictures within Parquet or shards are read with: d4k data import"
        )
    return found, hub.others


def _label(name: str, labels: Counter[str]) -> str:
    """A name for a source that no other source has."""
    labels[name] += 1
    return name if labels[name] == 1 else f"{name}-{labels[name]}"


def _unique(pictures: Iterable[Listed]) -> Iterable[Listed]:
    """Number the further pictures of an id, such as those of a path that a table names twice."""
    count: Counter[str] = Counter()
    for picture in pictures:
        count[picture.id] += 1
        number = count[picture.id]
        yield picture if number == 1 else evolve(picture, id=f"{picture.id}#{number}")


def _looked_for() -> str:
    return ", ".join((*sorted(PICTURES), *TABLES))
