"""What a person looks at while a model trains: its pictures side by side over time, and its losses as curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from attrs import frozen
from PIL import Image, ImageDraw, ImageFont

from d4k.files import atomic_file
from d4k.images import open_picture

__all__ = ["Column", "Row", "contact_sheet", "plot_losses", "spread", "thumbnail"]

CELL = 256
"""Longest side of a picture in a sheet, in pixels; one that is smaller stays as it is."""

COLUMNS = 10
"""Steps that fit into a sheet."""

NARROWEST, SHORTEST = 96, 72
MARGIN, GAP, HEAD, LABEL = 20, 10, 34, 200
INK, GREY, LINE = "#111111", "#777777", "#d8d8d8"


@frozen
class Row:
    """What one row of a sheet shows.

    Args:
        prompt: of its pictures.
        note: below the prompt, such as "seed 0".
    """

    prompt: str
    note: str = ""


@frozen
class Column:
    """What one column of a sheet shows.

    Args:
        title: above it, such as "step 500".
        pictures: one for each row; None where there is none.
    """

    title: str
    pictures: Sequence[Path | None]


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers from 0 to `count - 1`, evenly, the first and the last among them.

    >>> spread(5, 10), spread(101, 5)
    ([0, 1, 2, 3, 4], [0, 25, 50, 75, 100])
    """
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def thumbnail(path: Path, longest: int = CELL) -> Image.Image:
    """A picture made small enough for a sheet; a file that has not changed is read once.

    Args:
        path: of the picture.
        longest: longest side in pixels; a picture that is smaller is not enlarged.
    """
    state = path.stat()
    return _thumbnail(path, longest, (state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(1024)
def _thumbnail(path: Path, longest: int, state: tuple[int, ...]) -> Image.Image:  # noqa: ARG001 - part of the key
    picture = open_picture(path)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return picture


def contact_sheet(title: str, rows: Sequence[Row], columns: Sequence[Column], *, most: int = COLUMNS) -> Image.Image:
    """Pictures in rows and columns of equal cells on white, with a label beside each row and above each column.

    Args:
        title: above everything.
        rows: from the top.
        columns: from the left; where there are more than `most`, they are chosen evenly, the first and the last kept.
        most: columns that are shown.
    """
    shown = [columns[place] for place in spread(len(columns), most)]
    small = [[None if path is None else thumbnail(path) for path in column.pictures] for column in shown]
    there = [picture for column in small for picture in column if picture is not None]
    width = max(NARROWEST, *(picture.width for picture in there), 0)
    height = max(SHORTEST, *(picture.height for picture in there), 0)
    left, top = MARGIN + LABEL + GAP, 2 * HEAD + MARGIN
    size = left + len(shown) * (width + GAP) - GAP + MARGIN, top + len(rows) * (height + GAP) - GAP + MARGIN
    heading = _shortened(title, _font(18), max(size[0], 640) - 2 * MARGIN)
    sheet = Image.new("RGB", (max(size[0], round(_font(18).getlength(heading)) + 2 * MARGIN), size[1]), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), heading, INK, font=_font(18))
    for place, row in enumerate(rows):
        _label(draw, row, MARGIN, top + place * (height + GAP), height)
    for number, (column, pictures) in enumerate(zip(shown, small, strict=True)):
        x = left + number * (width + GAP)
        draw.text((x + width // 2, top - 8), column.title, INK, font=_font(15), anchor="mb")
        for place, picture in enumerate(pictures):
            _cell(sheet, draw, picture, (x, top + place * (height + GAP), width, height))
    return sheet


def _cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Image.Image | None, box: tuple[int, int, int, int]
) -> None:
    """A picture in the middle of its cell, or a frame that says there is none."""
    x, y, width, height = box
    if picture is None:
        draw.rectangle((x, y, x + width - 1, y + height - 1), outline=LINE)
        draw.text((x + width // 2, y + height // 2), "no picture", GREY, font=_font(13), anchor="mm")
        return
    sheet.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))


def _label(draw: ImageDraw.ImageDraw, row: Row, x: int, y: int, height: int) -> None:
    """The prompt in as many lines as its row has room for, and the note below."""
    room = max(1, (height - 20) // 19)
    lines = _wrapped(row.prompt or "(no prompt)", _font(15), LABEL)
    if len(lines) > room:
        lines = [*lines[: room - 1], _shortened(" ".join(lines[room - 1 :]), _font(15), LABEL)]
    for number, line in enumerate(lines):
        draw.text((x, y + number * 19), line, INK, font=_font(15))
    draw.text((x, y + len(lines) * 19 + 2), row.note, GREY, font=_font(13))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """A text in lines of at most `width` pixels; a word that is longer is cut."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """A text of at most `width` pixels; what is too long ends in an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def plot_losses(
    path: Path, steps: Sequence[int], losses: Sequence[float], by_sigma: Mapping[str, Sequence[float]]
) -> None:
    """A curve for each noise level, and their mean.

    Args:
        path: of the PNG file, written whole or not at all.
        steps: at which the loss was measured.
        losses: mean over the noise levels at each of the steps.
        by_sigma: noise level -> the loss there at each of the steps.

    Raises:
        OutputError: it cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(steps) < 30 else ""
    for number, (sigma, values) in enumerate(by_sigma.items()):
        color = colormaps["viridis"](0.9 * number / max(1, len(by_sigma) - 1))
        axes.plot(steps, values, color=color, linewidth=1, marker=marker, markersize=3, label=f"sigma {sigma}")
    axes.plot(steps, losses, color="black", linewidth=2.5, marker=marker, markersize=5, label="mean")
    axes.set(xlabel="step", ylabel="loss on held-out pictures", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
