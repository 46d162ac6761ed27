"""The loss on pictures that are not trained on, at fixed noise levels, each time with the same noise."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from PIL.Image import Image
from torch import Tensor

from d4k.config import RunConfig
from d4k.errors import DataError
from d4k.files import json_number, read_bytes, read_json_line, write_text
from d4k.images import open_picture
from d4k.models import RunFolder
from d4k.protocols import Backbone, Conditioning, Dataset, FlowStep, Loss
from d4k.seeds import numbered_seed
from d4k.training.data.source import Source, View
from d4k.training.engine import Engine
from d4k.training.sheets import plot_losses

__all__ = ["HeldOut", "HeldOutLosses", "encode_held_out", "read_held_out_losses"]

NAME, PLOT = "losses.jsonl", "losses.png"


@frozen(eq=False)
class HeldOut:
    """A picture that is not trained on, encoded.

    Args:
        clean: its latent, (1, C, h, w) on the CPU.
        conditioning: of its caption, on the CPU.
    """

    clean: Tensor
    conditioning: Conditioning


def encode_held_out(source: Source, dataset: Dataset, views: Iterable[View]) -> list[HeldOut]:
    """Encode pictures that are held out, or read them from a cache.

    Args:
        source: of latents and text.
        dataset: captioned pictures.
        views: how each of them is cut.
    """
    return [
        HeldOut(source.latent(source.load(view)).mean.to(torch.float32), source.text(dataset[view.index].caption))
        for view in views
    ]


class HeldOutLosses:
    """The loss of a run on held-out pictures: measured, kept in `validation/losses.jsonl`, plotted beside it.

    Args:
        engine: of the run.
        backbone: loaded.
        loss: of the run; noise levels are not weighted.
        config: of the run, with `validation`.
        held_out: encoded; their order decides their noise.
        run: where the run is kept.
    """

    def __init__(
        self,
        engine: Engine,
        backbone: Backbone,
        loss: Loss,
        config: RunConfig,
        held_out: Sequence[HeldOut],
        run: RunFolder,
    ) -> None:
        assert config.validation is not None
        self.engine, self.backbone, self.loss, self.held_out = engine, backbone, loss, held_out
        self.settings, self.guidance = config.validation, config.flow.guidance
        self.file, self.plot = run.validation / NAME, run.validation / PLOT
        self.run, self.kind = run.path, {"pictures": len(held_out), "seed": config.validation.seed}

    def __len__(self) -> int:
        """How many parts the measurement has, each of which one process can do."""
        return len(self.held_out)

    def seen(self, step: int) -> bool:
        """Whether the losses at a step are kept already."""
        return any(row["step"] == step for row in self._rows())

    def forget(self, after: int) -> None:
        """Drop what is kept of later steps, which a run that is resumed does again."""
        rows = self._rows()
        if any(row["step"] > after for row in rows):
            self._write([row for row in rows if row["step"] <= after])

    def measure(self, index: int, tick: Callable[[], None]) -> list[float]:
        """The loss of a picture at each noise level; with shared weights every process must ask.

        Args:
            index: of the picture.
            tick: called after each noise level; it may raise.
        """
        picture, device = self.held_out[index], self.engine.device
        clean, text = picture.clean.to(device, torch.float32), picture.conditioning.to(device=device)
        found = []
        for place, level in enumerate(self.settings.sigmas):
            number = index * len(self.settings.sigmas) + place
            seed = numbered_seed(self.settings.seed, "validation noise", number)
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(device)
            flow = FlowStep(clean, noise, torch.full((1,), level, device=device))
            with self.engine.autocast():
                velocity = self.backbone.velocity(flow.noisy, flow.sigma, text, self.guidance)
            found.append(self.loss(velocity, flow).mean().item())
            tick()
        return found

    def keep(self, step: int, found: Mapping[int, list[float]]) -> tuple[dict[str, float], dict[str, Image]]:
        """Write what was measured, in the first process.

        Args:
            step: optimizer steps done.
            found: index of a picture -> what `measure` said.

        Returns:
            Figures that are finite, and the plot, by name.

        Raises:
            OutputError: it cannot be written.
        """
        table = torch.tensor([found[index] for index in sorted(found)], dtype=torch.float64)
        means = map(json_number, table.mean(0).tolist())
        levels = dict(zip(map(str, self.settings.sigmas), means, strict=True))
        rows = [row for row in self._rows() if row["step"] != step]
        loss = json_number(table.mean().item())
        self._write([*rows, {"step": step, "loss": loss, "sigmas": levels, **self.kind}])
        figures = {"validation/loss": loss}
        figures |= {f"validation/loss at sigma {level}": value for level, value in levels.items()}
        shown = {name: value for name, value in figures.items() if value is not None}
        return shown, {"validation/losses": open_picture(self.plot)}

    def _rows(self) -> list[dict[str, Any]]:
        """What is kept of as many pictures, with the same noise, at the same noise levels."""
        levels, rows = [str(level) for level in self.settings.sigmas], read_held_out_losses(self.run)
        return [row for row in rows if list(row["sigmas"]) == levels and row | self.kind == row]

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows, in the order of their steps, and plot them."""
        rows = sorted(rows, key=lambda row: row["step"])
        write_text(self.file, "".join(json.dumps(row) + "\n" for row in rows))
        levels = {str(level): _drawn(row["sigmas"][str(level)] for row in rows) for level in self.settings.sigmas}
        plot_losses(self.plot, [row["step"] for row in rows], _drawn(row["loss"] for row in rows), levels)


def _drawn(losses: Iterable[float | None]) -> list[float]:
    """Losses of a curve, which has a gap where one was not finite."""
    return [math.nan if loss is None else loss for loss in losses]


def read_held_out_losses(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's `validation/losses.jsonl`; empty without a file.

    Each has step, loss (the mean over the noise levels), sigmas (the loss at each), pictures (their number) and seed.
    A loss that was not finite is None.

    Args:
        folder: of the run.

    Raises:
        DataError: a line is damaged; `path` and `line` are set.
    """
    path = RunFolder(folder).validation / NAME
    if not path.is_file():
        return []
    lines = read_bytes(path, DataError).decode("utf-8", "replace").splitlines()
    return [read_json_line(line, path, number) for number, line in enumerate(lines, 1)]
