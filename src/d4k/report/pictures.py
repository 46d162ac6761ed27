"""The pictures of a report as files: tiles, thumbnails and heat maps, each picture decoded once."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from attrs import Factory, define, field, frozen
from tqdm.auto import tqdm

from d4k.errors import DataError
from d4k.files import json_number
from d4k.images import open_picture, to_tensor
from d4k.report.data import HeatData, PictureData, RowData, TilesData
from d4k.report.patches import Map, PatchScorer, colour, ends, extremes
from d4k.report.sources import Row, Shown, slugs, unique
from d4k.report.tiles import TILE, link_tiles, pyramid, write_thumb, write_tiles

__all__ = ["Studio"]

WORKERS = 8
"""Pictures at once, at most; each takes about 130 MB at 4096x4096."""


@frozen
class _Drawn:
    """What became of a picture: its tiles, the scores of its patches by metric, and why a metric has none."""

    width: int
    height: int
    tiles: TilesData
    thumb: str
    maps: Mapping[str, Map]
    failures: Mapping[str, str]


@define
class Studio:
    """Writes the pictures of a report; pictures of the same content share their files.

    Args:
        folder: of the report.
        earlier: of an earlier report, whose tiles are taken over; need not exist.
        scorers: metrics with heat maps.
        failures: by metric, why it gave no heat map of a picture.
    """

    folder: Path
    earlier: Path
    scorers: Sequence[PatchScorer]
    failures: dict[str, list[str]] = field(factory=dict)
    _slugs: Mapping[str, str] = Factory(
        lambda self: dict(zip(_names(self.scorers), slugs(_names(self.scorers)), strict=True)), takes_self=True
    )

    def rows(self, rows: Sequence[Row], sets: Sequence[str]) -> list[RowData]:
        """Write the pictures of all rows.

        Memory does not grow with the number of pictures.

        Args:
            rows: pictures side by side.
            sets: id of each column.

        Raises:
            DataError: a picture cannot be read.
            OSError: the folder cannot be written.
        """
        for name in ("tiles", "thumbs", *(f"heat/{name}" for name in sets if self.scorers)):
            (self.folder / name).mkdir(parents=True)
        ids = _ids(rows)
        drawn = enumerate(self._drawn(rows))
        return [
            RowData(ids[number], _prompt(rows[number]), self._row(number, rows[number], pictures, sets))
            for number, pictures in tqdm(drawn, total=len(rows), desc="drawing", unit="row", leave=False)
        ]

    def notes(self) -> list[str]:
        """Of which pictures there are no heat maps, a sentence a metric."""
        return [
            f"{len(reasons)} pictures have no heat map of {metric}; of the first one: {reasons[0]}"
            for metric, reasons in self.failures.items()
        ]

    def _drawn(self, rows: Sequence[Row]) -> Iterator[list[_Drawn | None]]:
        """The pictures of each row in turn, while those of the next rows are in the making."""
        workers = max(1, min(os.cpu_count() or 1, WORKERS))
        uses = Counter(shown.picture.sha256 for row in rows for shown in row if shown is not None)
        making: dict[str, Future[_Drawn]] = {}
        pool = ThreadPoolExecutor(workers)
        try:
            ahead: deque[Row] = deque()
            for row in rows:
                for shown in row:
                    if shown is not None and shown.picture.sha256 not in making:
                        making[shown.picture.sha256] = pool.submit(self._draw, shown)
                ahead.append(row)
                if len(ahead) > 2 * workers:
                    yield _finished(ahead.popleft(), making, uses)
            while ahead:
                yield _finished(ahead.popleft(), making, uses)
        finally:
            pool.shutdown(cancel_futures=True)

    def _draw(self, shown: Shown) -> _Drawn:
        """Make the files of one picture; those of an earlier report are linked."""
        key = shown.picture.sha256[:32]
        tiles, thumb = f"tiles/{key}", f"thumbs/{key}.jpg"
        size = shown.picture.width, shown.picture.height
        linked = link_tiles(self.earlier, self.folder, tiles, pyramid(*size), [thumb])
        maps: dict[str, Map] = {}
        failures: dict[str, str] = {}
        if not linked or self.scorers:
            picture = open_picture(shown.file)
            size = picture.size
            if not linked:
                write_tiles(picture, self.folder / tiles)
                write_thumb(picture, self.folder / thumb)
            image = to_tensor(picture)
            for scorer in self.scorers:
                try:
                    maps[scorer.name] = scorer.scores(image)
                except DataError as error:
                    failures[scorer.name] = str(error)
        levels = pyramid(*size)
        return _Drawn(*size, TilesData(tiles, TILE, levels, len(levels) - 1), thumb, maps, failures)

    def _row(
        self, number: int, row: Row, drawn: Sequence[_Drawn | None], sets: Sequence[str]
    ) -> tuple[PictureData | None, ...]:
        for made in filter(None, drawn):
            for metric, reason in made.failures.items():
                self.failures.setdefault(metric, []).append(reason)
        scales = {
            scorer.name: ends(maps)
            for scorer in self.scorers
            if (maps := [made.maps[scorer.name] for made in drawn if made is not None and scorer.name in made.maps])
        }
        picture = partial(self._picture, number, scales)
        return tuple(
            None if shown is None or made is None else picture(shown, made, name)
            for shown, made, name in zip(row, drawn, sets, strict=True)
        )

    def _picture(
        self, number: int, scales: Mapping[str, tuple[float, float]], shown: Shown, made: _Drawn, name: str
    ) -> PictureData:
        heat, patches = {}, {}
        for scorer in self.scorers:
            scores = made.maps.get(scorer.name)
            if scores is not None:
                low, high = scales[scorer.name]
                file = f"heat/{name}/{number}-{self._slugs[scorer.name]}.png"
                colour(scores, low, high).save(self.folder / file)
                heat[scorer.name] = HeatData(file, scores.shape[1], scores.shape[0], low, high)
                patches[scorer.name] = extremes(scores, scorer.patch, scorer.higher_is_better)
        own = shown.picture
        values = {metric: json_number(value) for metric, value in own.values.items()}
        label = Path(own.file).name
        return PictureData(
            label, made.width, made.height, own.seed, own.sha256, made.thumb, made.tiles, values, heat, patches
        )


def _finished(row: Row, making: dict[str, Future[_Drawn]], uses: Counter[str]) -> list[_Drawn | None]:
    """The pictures of a row; those that no later row shows are forgotten."""
    drawn = [None if shown is None else making[shown.picture.sha256].result() for shown in row]
    for shown in row:
        if shown is not None:
            uses[shown.picture.sha256] -= 1
            if not uses[shown.picture.sha256]:
                del making[shown.picture.sha256]
    return drawn


def _prompt(row: Row) -> str | None:
    return next((shown.picture.prompt for shown in row if shown and shown.picture.prompt is not None), None)


def _ids(rows: Sequence[Row]) -> list[str]:
    """A name for each row: that of its first picture, unique."""
    return unique([next(shown.picture.id for shown in row if shown is not None) for row in rows])


def _names(scorers: Sequence[PatchScorer]) -> list[str]:
    return [scorer.name for scorer in scorers]
