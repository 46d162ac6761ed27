"""What `stages.py` says of its pictures: tables with intervals in Markdown, and contact sheets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen
from PIL import Image, ImageDraw, ImageFont
from stages_pictures import (
    DIRECT,
    GUIDED,
    LANCZOS,
    METHODS,
    OCTAVES,
    POSSIBLE,
    STAGES,
    Plan,
    Study,
    Work,
    own_side,
    photograph,
)

from d4k import ConfigError
from d4k.evaluation import interval_of
from d4k.files import read_json, write_text
from d4k.images import save_picture, to_picture
from d4k.seeds import numbered_seed
from d4k_tiny.photos import PHOTOS

PAIRS = ((STAGES, DIRECT), (STAGES, LANCZOS), (GUIDED, DIRECT), (GUIDED, LANCZOS), (GUIDED, STAGES))
PIXELS = ("2-4 px", "4-8 px", "8-16 px")
"""The periods in the bands of `OCTAVES`."""
BETTER = (1, 1, -1, -1, -1)
"""Sign of a difference that is better, of each figure."""
SHOWN = ("astronaut", "coffee", "retina")
CELL = 256
BEGIN, END = "<!-- tables of examples/stages.py begin -->", "<!-- tables of examples/stages.py end -->"


@frozen
class Results:
    """The figures of one model at one size.

    Args:
        study: whose pictures they are of.
        size: pixels a side.
        methods: in the order of the tables.
        seeds: those that every caption and method is there of.
        values: method -> (captions, 2 + octaves), means over seeds; NaN where a photograph has no such octave.
    """

    study: Study
    size: int
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Mapping[str, np.ndarray]

    @property
    def title(self) -> str:
        """Model and size."""
        return f"{self.study.plan.model} at {self.size} pixels"

    @property
    def columns(self) -> list[str]:
        """Titles of the figures; those of octaves say how many photographs they are of."""
        counts = np.isfinite(self.values[STAGES][:, 2:]).sum(0)
        return ["PSNR", "SSIM", *(f"{name} ({count})" for name, count in zip(PIXELS, counts, strict=True))]


def results(study: Study, size: int, captions: int, methods: tuple[str, ...] = METHODS) -> Results | None:
    """Read what is finished; None where no seed is, with every caption and method."""
    photos = range(captions)

    def there(method: str, seed: int) -> bool:
        return all(study.figures(Work(method, size, photo, seed)).is_file() for photo in photos)

    first = study.figures(Work(STAGES, size, 0, 0))
    begun = sorted(int(file.stem.rpartition("seed")[2]) for file in first.parent.glob(first.name.replace("d0.", "d*.")))
    seeds = tuple(seed for seed in begun if all(there(method, seed) for method in methods))
    if not seeds or not there(POSSIBLE, -1):
        return None
    has = [[own_side(photo) >= high * size for _, high in OCTAVES] for photo in photos]

    def values(method: str, of: Sequence[int]) -> np.ndarray:
        read = [
            [read_json(study.figures(Work(method, size, photo, seed)), ConfigError) for seed in of] for photo in photos
        ]
        table = np.array([[[one["PSNR"], one["SSIM"], *one["octaves"]] for one in row] for row in read])
        means: np.ndarray = table.mean(1)
        means[:, 2:][~np.array(has)] = np.nan
        return means

    found = {POSSIBLE: values(POSSIBLE, [-1])} | {method: values(method, seeds) for method in methods}
    return Results(study, size, methods, seeds, found)


def mean_with_interval(values: np.ndarray, resamples: int = 4000) -> tuple[float, tuple[float, float] | None]:
    """The mean over captions, and its 95 % bootstrap interval; the seeds of a caption are drawn together.

    Captions without a value (NaN) are left out, and one alone has no interval.
    """
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("nan"), None
    mean = float(values.mean())
    if len(values) == 1:
        return mean, None
    chosen = np.random.default_rng(numbered_seed(0, "bootstrap", 0)).integers(
        len(values), size=(resamples, len(values))
    )
    return mean, interval_of(values[chosen].mean(1), mean, len(values))


def cell(values: np.ndarray, digits: int, *, sign: bool) -> str:
    """A mean and its interval as text."""
    mean, interval = mean_with_interval(values)
    if np.isnan(mean):
        return ""
    form = f"{'+' if sign else ''}.{digits}f"
    return f"{mean:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


def means(found: Results) -> list[list[str]]:
    """A row a method, with what is possible at all above them."""
    rows = {"photograph through the autoencoder": found.values[POSSIBLE]}
    rows |= {method: found.values[method] for method in found.methods}
    return [[name, *cells(values)] for name, values in rows.items()]


def differences(found: Results) -> list[list[str]]:
    """A row a pair of methods: of PSNR, of SSIM, and of the distance of each octave from that of the photograph."""
    return [[f"{one} - {other}", *cells(values, sign=True)] for one, other, values in paired(found)]


def cells(values: np.ndarray, *, sign: bool = False) -> list[str]:
    """A mean and its interval as text, of each column of (captions, figures)."""
    return [cell(column, 3 if place == 1 else 2, sign=sign) for place, column in enumerate(values.T)]


def paired(found: Results) -> Iterator[tuple[str, str, np.ndarray]]:
    """Two methods, and (captions, figures) of how far they are apart."""
    for one, other in PAIRS:
        if {one, other} <= set(found.methods):
            a, b = (found.values[method] for method in (one, other))
            yield one, other, np.hstack([a[:, :2] - b[:, :2], np.abs(a[:, 2:]) - np.abs(b[:, 2:])])


def verdicts(found: Results) -> Iterator[str]:
    """For each pair of methods, a sentence that says in what the one is better for sure."""
    for one, other, table in paired(found):
        sides: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
        for name, values in zip(found.columns, (table * BETTER).T, strict=True):
            interval = mean_with_interval(values)[1] or (-1.0, 1.0)
            side = "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "undecided"
            sides[side].append(name.partition(" (")[0])
        said = "; ".join(f"{side} in {', '.join(names)}" for side, names in sides.items() if names)
        yield f"- *{one}* against *{other}*: {said}."


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown; `title` is that of the first column."""
    lines = [[title, *columns], ["---", *["---:"] * len(columns)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(found: Results) -> str:
    """All that is said of one model at one size."""
    plan, seeds = found.study.plan, len(found.seeds)
    counted = f"{len(found.values[STAGES])} captions, {seeds} {'seed' if seeds == 1 else 'seeds'} each"
    aligned = f"alignment {plan.alignment:g} with a cutoff of {plan.cutoff:g}"
    parts = [
        f"### {found.title}",
        f"{counted}; restart {plan.restart:g}, {aligned}, positions `{plan.positions}`.",
        table("", found.columns, means(found)),
        "Paired differences; of an octave, that of the distance to 0 dB, so that less is better:",
        table("", found.columns, differences(found)),
        "\n".join(verdicts(found)),
    ]
    parts.append(f"![{found.title}: photograph, {', '.join(METHODS)}](images/{sheet_name(found)})")
    return "\n\n".join(parts)


def sheet_name(found: Results) -> str:
    """File of a contact sheet."""
    return f"stages-{found.study.plan.model}-{found.size}.jpg"


def sheet(found: Results) -> Image.Image:
    """For each photograph a row of whole pictures, made small, and one of their middles, pixel by pixel."""
    gap, top, methods = 6, 30, ("photograph", *METHODS)
    shown = [photo for photo in range(len(found.values[STAGES])) if PHOTOS[photo].id in SHOWN] or [0]
    extent = (len(methods) * (CELL + gap), top + 2 * len(shown) * (CELL + gap))
    canvas = Image.new("RGB", extent, "white")
    for column, method in enumerate(methods):
        place = (column * (CELL + gap) + 4, 4)
        ImageDraw.Draw(canvas).text(place, method, "black", font=ImageFont.load_default(18))
        for row, photo in enumerate(shown):
            work = Work(method, found.size, photo, found.seeds[0])
            pixels = photograph(photo, found.size) if column == 0 else found.study.picture(work)
            edge = max(0, (found.size - CELL) // 2)
            picture = to_picture(pixels)
            whole = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
            for line, part in enumerate((whole, picture.crop((edge, edge, edge + CELL, edge + CELL)))):
                canvas.paste(part, (column * (CELL + gap), top + (2 * row + line) * (CELL + gap)))
    return canvas


def finished(folder: Path, captions: int) -> list[Results]:
    """What is there of every model and size."""
    studies = [Study(kept.parent, read_plan(kept)) for kept in sorted(folder.glob("*/plan.json"), reverse=True)]
    sizes = [(study, size) for study in studies for size in sizes_of(study)]
    return [found for study, size in sizes if (found := results(study, size, captions)) is not None]


def read_plan(kept: Path) -> Plan:
    """The plan of a folder of pictures."""
    record = read_json(kept, ConfigError)
    return Plan(**{name: value for name, value in record.items() if name != "weights"})


def sizes_of(study: Study) -> list[int]:
    """Sizes that there are stages of, ascending."""
    return sorted(int(found.name.rpartition("-")[2]) for found in study.folder.glob("stages-[0-9]*"))


def pilot_table(folder: Path, captions: int, methods: tuple[str, ...]) -> str:
    """All plans that were tried, in Markdown; empty where none was."""
    rows: dict[tuple[str, ...], None] = {}
    for kept in sorted(folder.glob("*/*/plan.json")):
        study = Study(kept.parent, read_plan(kept))
        tried = [results(study, size, captions, methods) for size in sizes_of(study)]
        rows |= {row: None for found in tried if found is not None for row in pilot_rows(found)}
    columns = ["size", "method", "restart", "alignment", "cutoff", "PSNR", "SSIM", *PIXELS]
    return table("model", columns, sorted(rows)) if rows else ""


def pilot_rows(found: Results) -> Iterator[tuple[str, ...]]:
    """One a method, with the settings that it depends on, so that equal ones are one."""
    plan = found.study.plan
    settings = [f"{value:g}" for value in (plan.restart, plan.alignment, plan.cutoff)]
    depends = {LANCZOS: 0, STAGES: 1, GUIDED: 3}
    for method in found.methods:
        said = [value if place < depends[method] else "" for place, value in enumerate(settings)]
        figures = [text.partition(" [")[0] for text in cells(found.values[method])]
        yield (plan.model, str(found.size), method, *said, *figures)


def report(folder: Path, captions: int, tried: str = "", page: Path | None = None) -> str:
    """Leave tables and sheets in the folder, and in a page of the documentation between its two marks.

    Args:
        folder: with a folder of pictures for each model.
        captions: how many of a method and seed make it finished.
        tried: table of the pilot.
        page: Markdown.

    Raises:
        ConfigError: the page lacks the marks.
    """
    found = finished(folder, captions)
    parts = [section(one) for one in found]
    if tried:
        parts.append(f"### The pilot\n\nOne seed that is not among those above, and is not reported:\n\n{tried}")
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "tables.md", text)
    sheets = [folder / "images" / sheet_name(one) for one in found]
    for one, path in zip(found, sheets, strict=True):
        save_picture(sheet(one), path, quality=82)
    if page is not None:
        before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ConfigError(f"{page} must hold the lines '{BEGIN}' and '{END}', between which the tables go")
        write_text(page, f"{before}{BEGIN}\n\n{text}\n{END}{after}")
        for path in sheets:
            shutil.copyfile(path, page.parent / "images" / path.name)
    return text
