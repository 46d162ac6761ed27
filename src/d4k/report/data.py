"""What a page of a report is given: frozen values, and `data.js`, in which they reach it without a request.

A browser blocks requests to `file://`, so the page loads `data.js` as a script. It holds `window.D4K = {...};`: the
JSON of a `ReportData`, its fields in camelCase (`higherIsBetter`). The page must treat every text as plain text, never
as HTML. All paths are relative to the folder of the report and made of the characters [a-z0-9._/-] alone.

    sets        columns: photographs first where there are some, then what was measured
    metrics     the union of the sets' metrics; scores[set][metric] is null where a set was not measured with one
    rows        a prompt each; row.pictures[set] is null where a set has no picture of it
    tiles       file of a tile: `{tiles.path}/{level}/{column}_{row}.{levels[level].format}`; level 0 is the smallest
                and fits into one tile, level maxLevel is the picture itself as lossless PNG. Each level is half the
                next one, rounded up; tiles do not overlap, those at the right and the bottom are cut.
    heat        a PNG of one pixel a patch (transparent where a patch has no score), for the rectangle
                (0, 0, columns * patch, rows * patch) of the picture, where `patch` is that of the metric;
                `low` and `high` are the ends of the colours (viridis), common to the pictures of a row
    patches     `worst` first has the worst; metrics with higherIsBetter null have the highest values under `best`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

from d4k.files import json_number

__all__ = [
    "FORMAT",
    "PREFIX",
    "ComparisonData",
    "FaultData",
    "HeatData",
    "HistogramData",
    "LevelData",
    "LicenceData",
    "MetricData",
    "PatchData",
    "PatchesData",
    "PictureData",
    "ReportData",
    "RowData",
    "ScoreData",
    "SetData",
    "TilesData",
    "script",
]

FORMAT = 1
"""Of `data.js`."""

PREFIX = "window.D4K = "
"""What `data.js` begins with; JSON and a semicolon follow."""


@frozen
class LevelData:
    """One size of a picture, cut into tiles.

    Args:
        width: pixels.
        height: pixels.
        columns: of tiles.
        rows: of tiles.
        format: ending of the tiles' files: "png", which is lossless, or "jpg".
    """

    width: int
    height: int
    columns: int
    rows: int
    format: str


@frozen
class TilesData:
    """A picture as tiles.

    Args:
        path: their folder.
        tile_size: pixels a side of a tile that is not cut.
        levels: from the smallest, which is one tile, to the picture itself.
        max_level: index of the last level.
    """

    path: str
    tile_size: int
    levels: tuple[LevelData, ...]
    max_level: int


@frozen
class HeatData:
    """The scores of a picture's patches as a small picture.

    Args:
        file: PNG of `columns` x `rows` pixels.
        columns: of patches.
        rows: of patches.
        low: the score that has the first colour.
        high: the score that has the last colour.
    """

    file: str
    columns: int
    rows: int
    low: float
    high: float


@frozen
class PatchData:
    """One patch of a picture.

    Args:
        x: pixels from the left to its left edge.
        y: pixels from the top to its upper edge.
        size: pixels a side.
        value: its score.
    """

    x: int
    y: int
    size: int
    value: float


@frozen
class PatchesData:
    """Patches of a picture that stand out; no two of them touch each other within a list.

    Args:
        worst: the worst first.
        best: the best first.
    """

    worst: tuple[PatchData, ...]
    best: tuple[PatchData, ...]


@frozen
class PictureData:
    """One picture of one set.

    Args:
        name: of its file.
        width: pixels, upright.
        height: pixels, upright.
        seed: it was sampled with.
        sha256: of its file.
        thumb: JPEG that is at most 384 pixels wide and high.
        tiles: for the viewer.
        values: its score alone, by metric.
        heat: by metric.
        patches: by metric.
    """

    name: str
    width: int
    height: int
    seed: int | None
    sha256: str
    thumb: str
    tiles: TilesData
    values: Mapping[str, float | None] = field(factory=dict)
    heat: Mapping[str, HeatData] = field(factory=dict)
    patches: Mapping[str, PatchesData] = field(factory=dict)


@frozen
class RowData:
    """Pictures that belong together.

    Args:
        id: unique in the report.
        prompt: what they should show; None where that is not known.
        pictures: one a set, None where it has none.
    """

    id: str
    prompt: str | None
    pictures: tuple[PictureData | None, ...]


@frozen
class SetData:
    """One system, or the photographs.

    Args:
        id: unique in the report, of the characters [a-z0-9-].
        name: unique in the report.
        about: what else is known of it, as text.
        licence: "unknown" where it was not said.
        photograph: whether these are the reference pictures.
    """

    id: str
    name: str
    about: Mapping[str, str] = field(factory=dict)
    licence: str = "unknown"
    photograph: bool = False


@frozen
class MetricData:
    """One metric.

    Args:
        name: unique in the report.
        unit: empty for a plain number.
        higher_is_better: None where neither is better.
        settings: that its scores were made with.
        remarks: what a reader must know, a sentence each.
        set: whether it measures sets only, so that no picture has a value.
        patch: pixels a side of a patch, where there are heat maps.
    """

    name: str
    unit: str
    higher_is_better: bool | None
    settings: Mapping[str, Any]
    remarks: tuple[str, ...]
    set: bool
    patch: int | None = None


@frozen
class ScoreData:
    """A figure of a set, as `d4k.protocols.Score` has it.

    Args:
        value: the figure; None where it is not finite.
        interval: 95 %.
        count: pictures it rests on.
        references: reference pictures it rests on.
        details: further figures by name.
        detail_intervals: theirs, where they have one.
    """

    value: float | None
    interval: tuple[float | None, float | None] | None
    count: int
    references: int
    details: Mapping[str, float | None]
    detail_intervals: Mapping[str, tuple[float | None, float | None]] = field(factory=dict)


@frozen
class ComparisonData:
    """One metric of two sets, picture by picture.

    Args:
        metric: its name.
        a: index of a set.
        b: index of another.
        difference: of b from a: `b - a`.
        interval: of the difference, 95 %.
        p: of the Wilcoxon test; None where there is none.
        wins: pictures in which b is better.
        losses: pictures in which b is worse.
        ties: pictures in which neither is.
        count: pairs of pictures.
        real: whether the difference can be told from chance.
        p_adjusted: p of all differences of the report together, after Holm.
    """

    metric: str
    a: int
    b: int
    difference: float | None
    interval: tuple[float | None, float | None] | None
    p: float | None
    wins: int
    losses: int
    ties: int
    count: int
    real: bool
    p_adjusted: float | None = None


@frozen
class FaultData:
    """Something about a file, as `d4k.evaluation.result.Fault` has it.

    Args:
        set: index of its set.
        file: its path.
        kind: in a word.
        reason: in a sentence.
        left_out: whether the scores rest without it.
    """

    set: int
    file: str
    kind: str
    reason: str
    left_out: bool


@frozen
class HistogramData:
    """How the values of pictures are spread.

    Args:
        edges: of the bins, one more than there are bins; common to all sets.
        counts: of pictures in each bin, a list a set.
    """

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


@frozen
class LicenceData:
    """One licence.

    Args:
        name: what is licensed, and the licence's name.
        text: of the licence, or what is known of it.
    """

    name: str
    text: str


@frozen
class ReportData:
    """All of a report.

    Args:
        title: of the page.
        created: ISO 8601, UTC.
        version: of d4k.
        sets: columns.
        metrics: of all sets.
        scores: by set and by metric.
        comparisons: of every two sets.
        rows: pictures.
        faults: of files.
        histograms: by metric.
        licences: of what the report shows and is made with.
        notes: sentences about what the report does not show, and why.
        votes: what people voted, see `d4k.evaluation.votes`; None where nobody was asked.
        format: of `data.js`.
    """

    title: str
    created: str
    version: str
    sets: tuple[SetData, ...]
    metrics: tuple[MetricData, ...]
    scores: tuple[tuple[ScoreData | None, ...], ...]
    comparisons: tuple[ComparisonData, ...] = ()
    rows: tuple[RowData, ...] = ()
    faults: tuple[FaultData, ...] = ()
    histograms: Mapping[str, HistogramData] = field(factory=dict)
    licences: tuple[LicenceData, ...] = ()
    notes: tuple[str, ...] = ()
    votes: Any = None
    format: int = FORMAT


def script(data: ReportData) -> str:
    r"""The text of `data.js`: ASCII, harmless in HTML as well, and its numbers finite or null.

    >>> print(script(ReportData("</script>", "2026-01-01T00:00:00Z", "1", (), (), ()))[:44])
    window.D4K = {"title":"\u003c/script\u003e",
    """
    text = json.dumps(_plain(data), allow_nan=False, separators=(",", ":"))
    for character in "<>&":  # of HTML; JSON knows them in texts only
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f"{PREFIX}{text};\n"


def _plain(value: Any) -> Any:
    """As JSON has it; names of fields in camelCase, keys of mappings as they are."""
    if attrs.has(type(value)):
        return {_camel(f.name): _plain(getattr(value, f.name)) for f in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return json_number(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
