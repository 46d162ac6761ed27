"""Compiled loops over the pixel pairs of patches: 4096 cells an offset are counted, used and forgotten in the cache.

Three things make them fast at any texture. Four tables are counted into at once, from four strips of the patch, since
in a flat patch every pair would wait for the one before it to leave the same cell. The grey levels of a patch are
counted from its darkest one, so that the tables are as small as its range. How many cells hold a small number is
compared with all of 1 to 8 in vectors; only larger numbers are looked at one by one.

Shapes: `P` patches, `K` different offsets, `V` different values of cells.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["PATCH", "PROPERTIES", "Tables", "entropies", "grey", "properties"]

Table: TypeAlias = npt.NDArray[Any]
Levels: TypeAlias = npt.NDArray[np.uint8]
Whole: TypeAlias = Any  # an int of Python's or of numpy's: compiled code mixes them

KEPT = os.access(Path(__file__).parent, os.W_OK)
"""Whether compiled code is kept beside this file, which saves other processes some seconds."""

PATCH = 64
"""Height and width of a patch in pixels."""

PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
"""Of a co-occurrence matrix, by the names of scikit-image's `graycoprops`, in the order of `properties`."""

SMALL = 8
"""Up to this number of pairs, cells are counted in vectors."""

LARGE = 1024
"""More cells than can hold more than SMALL of a patch's pairs."""

BLOCK = 64
"""Cells that are looked at together."""

LINE = 96
"""Elements between two tables: with tables a multiple of 4 KiB apart, a store delays loads from the others."""


class Tables(NamedTuple):
    """What the loops look up.

    Args:
        offsets: (K, 3) int64: rows and columns from a pixel to its partner, and how often the offset counts.
        pairs: (K,) int64: how many pairs the cells of an offset hold together.
        ids: (K, N) int64: of a number of pairs in a cell, the number of its value; 0 is the value 0.
        terms: (V,) float64: value * log2(value).
    """

    offsets: Table
    pairs: Table
    ids: Table
    terms: Table


class Workspace(NamedTuple):
    """The arrays of one thread."""

    first: Table
    second: Table
    lanes: Table
    cells: Table
    large: Table
    held: Table
    seen: Table


@njit(cache=KEPT, nogil=True)
def grey(image: Levels, shift: int) -> Levels:
    """OpenCV's grey of uint8 (3, H, W), with its `shift` lowest bits dropped: (H, W)."""
    _, height, width = image.shape
    levels = np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            mixed = image[0, y, x] * 4899 + image[1, y, x] * 9617 + image[2, y, x] * 1868 + 8192
            levels[y, x] = mixed >> (14 + shift)
    return levels


@njit(cache=KEPT, nogil=True, error_model="numpy")
def entropies(patches: Levels, tables: Tables, levels: int, symmetric: bool) -> npt.NDArray[np.float64]:
    """Published and textbook entropy of each patch, (P, 2), as `d4k_glcm.cooccurrence` describes them."""
    scores = np.empty((len(patches), 2))
    work = _workspace(levels, len(tables.terms))
    count = tables.offsets[:, 2].sum()
    for number in range(len(patches)):
        span = _spread(patches[number], work)
        kinds = 0
        for offset in range(len(tables.offsets)):
            cells = _count_pairs(work, span, tables.offsets[offset, 0], tables.offsets[offset, 1], symmetric)
            kinds = _count_values(
                cells, work, tables.ids[offset], tables.offsets[offset, 2], kinds, tables.pairs[offset]
            )
        published, textbook = _entropies(work, tables.terms, kinds, count * levels**2)
        scores[number, 0], scores[number, 1] = published, textbook / count
    return scores


@njit(cache=KEPT, nogil=True, error_model="numpy")
def properties(patches: Levels, tables: Tables, levels: int, symmetric: bool) -> npt.NDArray[np.float64]:
    """PROPERTIES of each patch, means over the offsets: (P, 6)."""
    means = np.zeros((len(patches), 6))
    work = _workspace(levels, 1)
    count = tables.offsets[:, 2].sum()
    for number in range(len(patches)):
        span = _spread(patches[number], work)
        for offset in range(len(tables.offsets)):
            cells = _count_pairs(work, span, tables.offsets[offset, 0], tables.offsets[offset, 1], symmetric)
            for place, value in enumerate(_properties(cells, span)):
                means[number, place] += value * tables.offsets[offset, 2] / count
    return means


@njit(cache=KEPT, nogil=True)
def _workspace(levels: int, values: int) -> Workspace:
    return Workspace(
        np.empty((PATCH, PATCH), np.uint16),
        np.empty((PATCH, PATCH), np.uint16),
        np.zeros((4, levels**2 + LINE), np.uint16),
        np.empty(levels**2, np.uint16),
        np.empty(LARGE, np.uint16),
        np.zeros(values, np.int64),
        np.empty(values, np.int64),
    )


@njit(cache=KEPT, nogil=True)
def _spread(levels: Levels, work: Workspace) -> Whole:
    """Place each pixel in the tables, as the first and as the second of a pair; returns their rows and columns."""
    low, high = levels[0, 0], levels[0, 0]
    for row in levels:
        for level in row:
            low, high = min(low, level), max(high, level)
    span = np.int64(high) - np.int64(low) + 1
    for y in range(PATCH):
        for x in range(PATCH):
            level = np.uint16(levels[y, x]) - np.uint16(low)
            work.second[y, x] = level
            work.first[y, x] = level * np.uint16(span)
    return span


@njit(cache=KEPT, nogil=True, error_model="numpy")
def _count_pairs(work: Workspace, span: Whole, rows: Whole, columns: Whole, symmetric: bool) -> Table:
    """How many pairs each cell of (span, span) holds, flat."""
    one, two, three, four = work.lanes[0], work.lanes[1], work.lanes[2], work.lanes[3]
    strip = (PATCH - rows) // 4
    for y in range(strip):
        a, b = _pairs(work, y, rows, columns)
        c, d = _pairs(work, y + strip, rows, columns)
        e, f = _pairs(work, y + 2 * strip, rows, columns)
        g, h = _pairs(work, y + 3 * strip, rows, columns)
        for x in range(len(a)):  # unsigned, since signed places are asked whether they count from the end
            one[np.uint64(a[x]) + np.uint64(b[x])] += np.uint16(1)
            two[np.uint64(c[x]) + np.uint64(d[x])] += np.uint16(1)
            three[np.uint64(e[x]) + np.uint64(f[x])] += np.uint16(1)
            four[np.uint64(g[x]) + np.uint64(h[x])] += np.uint16(1)
    for y in range(4 * strip, PATCH - rows):
        a, b = _pairs(work, y, rows, columns)
        for x in range(len(a)):
            one[np.uint64(a[x]) + np.uint64(b[x])] += np.uint16(1)
    return _add_lanes(work, span, symmetric)


@njit(cache=KEPT, nogil=True)
def _pairs(work: Workspace, y: int, rows: int, columns: int) -> tuple[Table, Table]:
    left, width = max(0, -columns), PATCH - abs(columns)
    right = left + columns
    return work.first[y][left : left + width], work.second[y + rows][right : right + width]


@njit(cache=KEPT, nogil=True)
def _add_lanes(work: Workspace, span: Whole, symmetric: bool) -> Table:
    """Add the tables, and empty them; where `symmetric`, each pair counts in both directions."""
    size = span * span
    cells = work.cells[:size]
    one, two, three, four = work.lanes[0][:size], work.lanes[1][:size], work.lanes[2][:size], work.lanes[3][:size]
    for cell in range(size):
        cells[cell] = one[cell] + two[cell] + three[cell] + four[cell]
    for lane in (one, two, three, four):
        lane[:] = 0
    if symmetric:
        for row in range(span):
            for column in range(row + 1):
                both = cells[row * span + column] + cells[column * span + row]
                cells[row * span + column] = cells[column * span + row] = both
    return cells


@njit(cache=KEPT, nogil=True, error_model="numpy")
def _count_values(cells: Table, work: Workspace, ids: Table, repeats: Whole, kinds: Whole, left: Whole) -> Whole:
    """Add to `held` how many cells hold each value, `left` pairs in all; returns how many values were seen so far."""
    for pairs in range(1, SMALL + 1):
        equal = np.uint16(0)
        for place in range(len(cells)):
            equal = np.uint16(equal + np.uint16(cells[place] == pairs))
        if equal:
            kinds = _hold(work, ids[pairs], equal * repeats, kinds)
            left -= equal * pairs
            if not left:
                return kinds
    for place in range(_select_large(cells, work.large)):
        kinds = _hold(work, ids[work.large[place]], repeats, kinds)
    return kinds


@njit(cache=KEPT, nogil=True)
def _hold(work: Workspace, value: Whole, cells: Whole, kinds: Whole) -> Whole:
    if not work.held[value]:
        work.seen[kinds] = value
        kinds += 1
    work.held[value] += cells
    return kinds


@njit(cache=KEPT, nogil=True)
def _select_large(cells: Table, large: Table) -> Whole:
    """Copy numbers above SMALL to `large`, without a branch for each; returns how many there are."""
    found = np.uint64(0)
    for start in range(0, len(cells), BLOCK):
        block = cells[start : min(start + BLOCK, len(cells))]
        most = np.uint16(0)
        for place in range(len(block)):
            most = max(most, block[place])
        if most > SMALL:
            for place in range(len(block)):
                large[found] = block[place]
                found += np.uint64(block[place] > SMALL)
    return found


@njit(cache=KEPT, nogil=True)
def _entropies(work: Workspace, terms: Table, kinds: Whole, every: Whole) -> tuple[float, float]:
    """Entropy of how often each value occurs among `every` cell, and -sum p log2 p over all; empties `held`."""
    published, textbook, filled = 0.0, 0.0, 0
    for value in work.seen[:kinds]:
        share = work.held[value] / every
        published -= share * math.log2(share)
        textbook -= work.held[value] * terms[value]
        filled += work.held[value]
        work.held[value] = 0
    if filled < every:
        share = (every - filled) / every
        published -= share * math.log2(share)
    return published, textbook


@njit(cache=KEPT, nogil=True, error_model="numpy")
def _properties(cells: Table, span: Whole) -> tuple[float, float, float, float, float, float]:
    """PROPERTIES from sums of whole numbers, which are exact.

    Grey levels are counted from the darkest one, which changes none of the six.
    """
    pairs = contrast = dissimilarity = squares = np.int64(0)
    homogeneity = 0.0
    of_i = of_j = of_ii = of_jj = of_ij = np.int64(0)
    for i in range(span):
        for j in range(span):
            held, apart = np.int64(cells[i * span + j]), np.int64(abs(i - j))
            pairs += held
            contrast += held * apart**2
            dissimilarity += held * apart
            homogeneity += held / (1.0 + apart**2)
            squares += held**2
            of_i, of_j = of_i + held * i, of_j + held * j
            of_ii, of_jj, of_ij = of_ii + held * i**2, of_jj + held * j**2, of_ij + held * i * j
    spread = float(pairs * of_ii - of_i**2) * float(pairs * of_jj - of_j**2)
    correlation = (pairs * of_ij - of_i * of_j) / math.sqrt(spread) if spread else 1.0
    moment = squares / pairs**2
    return contrast / pairs, dissimilarity / pairs, homogeneity / pairs, math.sqrt(moment), correlation, moment
