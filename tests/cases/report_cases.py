"""Folders of reports whose pictures, values and texts are known, for what looks at them in a browser."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import d4k.report
from d4k.report.data import (
    ComparisonData,
    FaultData,
    HeatData,
    HistogramData,
    LicenceData,
    MetricData,
    PatchData,
    PatchesData,
    PictureData,
    ReportData,
    RowData,
    ScoreData,
    SetData,
    TilesData,
    script,
)
from d4k.report.openseadragon import SCRIPT, locate
from d4k.report.tiles import TILE, write_thumb, write_tiles

ASSETS = Path(d4k.report.__file__).parent / "assets"
PATCH = 64
METRICS = (
    MetricData(
        "glcm",
        "bits",
        True,
        {"definition": "published", "levels": 64},
        ("Agrees with people <i>better</i> than FID.",),
        False,
        PATCH,
    ),
    MetricData("compression-ratio", "", False, {"quality": 95}, (), False),
    MetricData("clip-score", "", True, {"model": "ViT-B-16"}, (), False),
    MetricData("glcm-entropy", "bits", None, {"definition": "haralick"}, (), False, PATCH),
    MetricData("fid", "", False, {"preprocessing": "clean"}, ("More dimensions than pictures.",), True),
)
CENTRES = {"glcm": 0.7, "compression-ratio": 11.0, "clip-score": 33.0, "glcm-entropy": 8.0}
HTML = "<img src=x onerror=\"document.body.id='run'\"> <b>a castle</b> & </script> in the mountains"


def noise(size: int, seed: int) -> Image.Image:
    """A picture of which every pixel has a colour of its own."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))


def write_page(
    folder: Path, pictures: Mapping[str, Sequence[Image.Image]], prompts: Sequence[str | None], title: str = "A report"
) -> ReportData:
    """Write a report: pictures by set, of which the first set are photographs, over and over for all the prompts.

    Row i shows picture i modulo their number, and has values of its own. The last set has no picture in the last row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in [*ASSETS.glob("*.*"), locate() / SCRIPT]:
        shutil.copyfile(file, folder / file.name)
    for name in ("table.md", "table.tex", "scores.json", "licences.txt"):
        (folder / name).write_text(name)
    sets = tuple(
        SetData(
            re.sub(r"[^a-z0-9]+", "-", name.lower()), name, {"model": f"d4k/{name}", "steps": "28"}, "Apache-2.0", not i
        )
        for i, name in enumerate(pictures)
    )
    drawn = [
        [_picture(folder, f"{entry.id}/{i}", image) for i, image in enumerate(pictures[entry.name])] for entry in sets
    ]
    rng = np.random.default_rng(1)
    rows = tuple(
        RowData(
            f"row-{i}",
            prompt,
            tuple(
                None if s == len(sets) - 1 > 0 and i == len(prompts) - 1 > 0 else _valued(found[i % len(found)], s, rng)
                for s, found in enumerate(drawn)
            ),
        )
        for i, prompt in enumerate(prompts)
    )
    faults = (
        FaultData(len(sets) - 1, "pictures/17.png", "truncated", "the file ends early", True),
        FaultData(0, "photographs/3.tif", "cmyk", "its colours were converted to RGB", False),
    )
    data = ReportData(
        title,
        "2026-11-25T12:00:00Z",
        "0.1.0",
        sets,
        METRICS,
        _scores(rows, len(sets)),
        _comparisons(rows, len(sets)),
        rows,
        faults,
        _histograms(rows, len(sets)),
        (LicenceData("OpenSeadragon: BSD-3-Clause", "Redistribution and use ..."), LicenceData("Run A: MIT", "text")),
        ("Heat maps are shown of metrics that have patches.",),
        {f"{sets[-1].name} preferred to {sets[0].name}": {"share": 0.625, "95 % interval": [0.51, 0.72], "votes": 40}},
    )
    (folder / "data.js").write_text(script(data))
    return data


def _picture(folder: Path, name: str, image: Image.Image) -> PictureData:
    slug, number = name.split("/")
    levels = write_tiles(image, folder / "tiles" / slug / number)
    for kind in ("thumbs", "heat"):
        (folder / kind / slug).mkdir(parents=True, exist_ok=True)
    write_thumb(image.copy(), folder / f"thumbs/{slug}/{number}.jpg")
    columns, rows = image.width // PATCH, image.height // PATCH
    values = np.random.default_rng(len(slug)).uniform(0.4, 0.9, (rows, columns))
    ramp = ((values - 0.4) / 0.5 * 255).astype(np.uint8)
    Image.fromarray(np.stack([ramp, 255 - ramp, np.full_like(ramp, 120)], -1)).save(
        folder / f"heat/{slug}/{number}.png"
    )
    heat = HeatData(f"heat/{slug}/{number}.png", columns, rows, 0.4, 0.9)
    order = np.argsort(values.ravel())
    spots = [
        [
            PatchData(int(k % columns) * PATCH, int(k // columns) * PATCH, PATCH, float(values.ravel()[k]))
            for k in chosen
        ]
        for chosen in (order[:5], order[::-1][:5])
    ]
    patches = PatchesData(tuple(spots[0]), tuple(spots[1]))
    named = [metric.name for metric in METRICS if metric.patch]
    tiles = TilesData(f"tiles/{slug}/{number}", TILE, levels, len(levels) - 1)
    thumb = f"thumbs/{slug}/{number}.jpg"
    return PictureData(
        f"{number}.png",
        image.width,
        image.height,
        int(number) + 7,
        f"{len(slug):02x}{number}" * 16,
        thumb,
        tiles,
        {},
        dict.fromkeys(named, heat),
        dict.fromkeys(named, patches),
    )


def _valued(picture: PictureData, s: int, rng: np.random.Generator) -> PictureData:
    gain = {0: 1.12, 1: 1.0}.get(s, 1.05)
    values = {name: float(rng.normal(centre * gain, centre * 0.08)) for name, centre in CENTRES.items()}
    return PictureData(**{**_fields(picture), "values": values})


def _fields(picture: PictureData) -> dict[str, Any]:
    return {name: getattr(picture, name) for name in PictureData.__slots__ if not name.startswith("__")}


def _values(rows: Sequence[RowData], s: int, name: str) -> list[float]:
    return [float(row.pictures[s].values[name] or 0) for row in rows if row.pictures[s] is not None]  # type: ignore[union-attr]


def _scores(rows: Sequence[RowData], sets: int) -> tuple[tuple[ScoreData | None, ...], ...]:
    scores = []
    for s in range(sets):
        line: list[ScoreData | None] = []
        for metric in METRICS[:-1]:
            values = np.array(_values(rows, s, metric.name))
            half = 1.96 * values.std() / max(1, len(values)) ** 0.5
            mean = float(values.mean())
            line.append(
                ScoreData(mean, (mean - half, mean + half), len(values), 0, {"median": float(np.median(values))})
            )
        fid = ScoreData(148.8 - 4 * s, (139.0 - 4 * s, 160.5 - 4 * s), len(rows), 195, {"kid": 0.021})
        scores.append((*line, fid if s else None))
    return tuple(scores)


def _comparisons(rows: Sequence[RowData], sets: int) -> tuple[ComparisonData, ...]:
    found = []
    for metric in METRICS[:-1]:
        for a in range(sets):
            for b in range(a + 1, sets):
                both = [row.pictures for row in rows if row.pictures[a] is not None and row.pictures[b] is not None]
                change = np.array([pair[b].values[metric.name] - pair[a].values[metric.name] for pair in both])  # type: ignore[union-attr,operator]
                half = 1.96 * change.std() / max(1, len(change)) ** 0.5
                mean, sign = float(change.mean()), -1 if metric.higher_is_better is False else 1
                wins = int((sign * change > 0).sum())
                real = abs(mean) > half
                interval = (mean - half, mean + half)
                p = 0.0004 if real else 0.31
                count = len(change)
                found.append(ComparisonData(metric.name, a, b, mean, interval, p, wins, count - wins, 0, count, real))
    return tuple(found)


def _histograms(rows: Sequence[RowData], sets: int) -> dict[str, HistogramData]:
    found = {}
    for metric in METRICS[:-1]:
        values = [_values(rows, s, metric.name) for s in range(sets)]
        edges = np.histogram_bin_edges(np.concatenate(values), 16)
        counts = tuple(tuple(np.histogram(each, edges)[0].tolist()) for each in values)
        found[metric.name] = HistogramData(tuple(edges.tolist()), counts)
    return found
