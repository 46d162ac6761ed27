"""Places in SD3's table of positions for pictures larger than those it was trained on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["POSITIONS", "stretch_positions", "table_axis"]

POSITIONS = ("native", "interpolate")


def stretch_positions(patch_embed: Any, trained: int) -> None:
    """Make a diffusers `PatchEmbed` stretch the trained middle of its table over larger images.

    An image of no more patches than the pretraining images, which the table covers, is served as before. A larger one
    of h x w patches samples the table every `trained / sqrt(h * w)` entries, about the same centre; a side that would
    leave the table with that takes smaller steps, so that it ends where the table does. So every size is covered.

    Args:
        patch_embed: with a `pos_embed` table of (1, side**2, D), where side is its `pos_embed_max_size`.
        trained: patches a side of the pretraining images.
    """
    native, side = patch_embed.cropped_pos_embed, patch_embed.pos_embed_max_size

    def stretched(height: int, width: int) -> Tensor:
        rows, columns = height // patch_embed.patch_size, width // patch_embed.patch_size
        step = min(1.0, trained / (rows * columns) ** 0.5)
        if step == 1 and max(rows, columns) <= side:
            return native(height, width)  # type: ignore[no-any-return]
        table = patch_embed.pos_embed.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        axes = [table_axis(count, step, side, table.device) for count in (rows, columns)]
        y, x = torch.meshgrid(*axes, indexing="ij")
        grid = torch.stack([x, y], -1)[None].float()
        sampled = F.grid_sample(table.float(), grid, mode="bicubic", padding_mode="border", align_corners=False)
        return sampled.flatten(2).transpose(1, 2).to(patch_embed.pos_embed.dtype)

    patch_embed.cropped_pos_embed = stretched


def table_axis(count: int, step: float, side: int, device: torch.device) -> Tensor:
    """Where `count` patches of one side of an image lie in the position table, in `grid_sample`'s units.

    Those have entry i of the table at (2 i + 1) / side - 1. No patch lies beyond the first or the last entry.

    Args:
        count: patches of this side of the image.
        step: entries of the table between two patches, at most 1; fewer where the side would leave the table.
        side: entries of the table.
        device: of the result.
    """
    if count > 1:
        step = min(step, (side - 1) / (count - 1))
    # where nothing is stretched, the entries that diffusers would take: with an odd rest it goes up by half an entry
    centre = (count - 1) / 2 if step < 1 else (side - 1) / 2 - (side - count) // 2
    return (torch.arange(count, device=device) - centre) * step * 2 / side
