"""The entropies of `d4k_glcm.cooccurrence` as operations of torch, for patches that lie on an accelerator.

Pairs and numbers of pairs are counted in integers, so the values are the same on every device; what is left to the
rounding of sums is below 1e-12. On a CPU the loops of `d4k_glcm.kernels` are many times faster.
"""

from __future__ import annotations

import torch
from torch import Tensor

from d4k_glcm.cooccurrence import PATCH, PUBLISHED, Form, make_tables

__all__ = ["patch_entropies"]


def patch_entropies(patches: Tensor, form: Form = PUBLISHED, memory: int = 2**28) -> Tensor:
    """Published and textbook entropy of every patch, as `d4k_glcm.cooccurrence.patch_entropies` has them.

    Args:
        patches: uint8 (P, 64, 64) on any device, each below `form.levels`.
        form: of the matrices.
        memory: bytes that may be used on the device at once, about; a patch takes 1 MB in the published form.

    Returns:
        (P, 2) float64 on the CPU: published and textbook, in bits.
    """
    tables = make_tables(form)
    ids = torch.from_numpy(tables.ids).to(patches.device)
    taken = 32 * (len(tables.terms) + form.levels**2 + PATCH**2)
    step = max(1, memory // taken)
    blocks = (patches[start : start + step] for start in range(0, len(patches), step))
    return torch.cat([_finished(_count_values(block, ids, form), form) for block in blocks])


def _count_values(patches: Tensor, ids: Tensor, form: Form) -> Tensor:
    """How many cells of a patch hold each value, (P, V) int32."""
    tables, levels = make_tables(form), patches.long()
    held = torch.zeros(len(patches), len(tables.terms), dtype=torch.int32, device=patches.device)
    for (rows, columns, repeats), numbers in zip(tables.offsets.tolist(), ids, strict=True):
        values = numbers[_count_pairs(levels, rows, columns, form).long()]
        held.scatter_add_(1, values, torch.full_like(values, repeats, dtype=torch.int32))
    return held


def _count_pairs(levels: Tensor, rows: int, columns: int, form: Form) -> Tensor:
    """How many pairs of an offset each cell holds, (P, cells) int32."""
    left, width = max(0, -columns), PATCH - abs(columns)
    here = levels[:, : PATCH - rows, left : left + width]
    there = levels[:, rows:, left + columns : left + columns + width]
    places = (here * form.levels + there).flatten(1)
    cells = torch.zeros(len(levels), form.levels**2, dtype=torch.int32, device=levels.device)
    cells.scatter_add_(1, places, torch.ones_like(places, dtype=torch.int32))
    if form.symmetric:
        table = cells.reshape(-1, form.levels, form.levels)
        cells = (table + table.mT).flatten(1)
    return cells


def _finished(held: Tensor, form: Form) -> Tensor:
    """Both entropies of each patch; on the CPU where the device has no float64."""
    held = held.cpu() if held.device.type == "mps" else held
    cells = held.double()
    shares = cells / form.cells
    published = -torch.where(held > 0, shares * shares.log2(), 0.0).sum(1)
    textbook = -(cells @ torch.from_numpy(make_tables(form).terms).to(held.device)) / len(form.offsets)
    return torch.stack([published, textbook], 1).cpu()
